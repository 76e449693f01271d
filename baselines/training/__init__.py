"""One resumable training loop, its parts, and one file per recipe."""
