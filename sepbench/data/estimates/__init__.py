"""Estimates that somebody else made: arrays, folders of images or sounds, Parquet indices. Nothing is guessed; what does not fit is counted and named."""
