"""Studies: many runs with the same seeds, and what their differences show."""
