"""Puts this folder on the import path, for test material that several folders share (``synthetic_run``)."""
