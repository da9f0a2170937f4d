"""What runs in a worker process: one function at a time."""
