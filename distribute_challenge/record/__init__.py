"""Files that are written while functions run, profile and results of a sweep: formats and writer.

Knows neither the pool nor the pictures.
"""
