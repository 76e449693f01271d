"""Architectures alone: modules of torch that know nothing of the project."""
