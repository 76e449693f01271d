"""Networks of our own that give features to distances between sets of images."""
