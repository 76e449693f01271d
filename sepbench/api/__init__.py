"""What ``import sepbench`` offers: the functions behind ``sepbench.run``, ``sepbench.compare`` and the others, one file each. Documented in docs/python.md."""
