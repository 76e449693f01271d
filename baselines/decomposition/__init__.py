"""What the methods that take signals apart share: non-negative factors, low rank, masks of spectrograms, medians."""
