"""Files that are written while functions run, and their formats. Knows neither the pool nor the pictures."""
