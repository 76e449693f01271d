"""From a request to scores: plan, separate, score, time, and say where it all came from."""
