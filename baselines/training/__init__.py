"""One resumable training loop, what it needs, and one recipe file per thing that is trained."""
