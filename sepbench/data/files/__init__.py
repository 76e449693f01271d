"""Files of data sets: manifests, fetching, integrity, and files that the package makes itself."""
