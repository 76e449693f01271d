"""Pictures of a run (``sepbench panel``): what is shown is gathered as plain arrays and texts, then drawn; only drawing needs matplotlib."""
