"""What score samplers share: the problem they solve, and the separator around a sampler."""
