"""What the methods that decompose signals share: non-negative factors, low rank, masks of spectrograms, medians."""
