"""The report's figures: each function returns a Drawing, which is a figure and its numbers."""
