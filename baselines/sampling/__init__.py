"""What score samplers share: the problem that they solve, and the separator around a sampler."""
