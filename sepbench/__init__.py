"""sepbench: the benchmark for methods that separate mixed signals.

Importing this package is cheap: neither torch nor any optional dependency is loaded until something needs it.
"""

__version__ = "0.1.0"
