"""From scores to leaderboards: the run's folder, statistics, tables, comparison."""
