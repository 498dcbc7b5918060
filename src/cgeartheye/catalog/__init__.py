"""The catalogue: which scenes there are, when they were taken, and what was left out and why."""
