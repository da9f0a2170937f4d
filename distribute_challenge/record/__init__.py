"""What is written while functions run, profile and results of a sweep: the formats and their writer.

Knows neither the pool nor the pictures.
"""
