"""Data: manifests, fetching, readers, mixing operators, pair lists, mixture sets and training views."""
