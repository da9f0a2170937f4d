"""Figures of the files that `record` describes. Knows neither the pool nor how they are written."""
