"""Architectures alone: torch modules that import nothing of the project."""
