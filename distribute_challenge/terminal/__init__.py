"""What a pool does, in the terminal: `compute status`, `compute stack` and `compute top`."""
