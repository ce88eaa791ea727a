"""One training run: Lightning fits a classifier; what was measured, and how to go on, lies in the run's folder."""
