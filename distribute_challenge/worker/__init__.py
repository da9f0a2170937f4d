"""The worker process: one function at a time."""
