"""This folder is on the import path, for test material that its subfolders share (``metric_cases``)."""
