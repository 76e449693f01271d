"""Metrics: one float64 value per example and source (or mixture), unreduced, independent of batch, order and thread count."""
