"""Figures. Each function that makes one takes what was read, and returns a matplotlib figure."""
