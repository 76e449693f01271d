"""Pair lists: the frozen CSV files, the seeded builders that made them, recipes, and rules for data that only users have."""
