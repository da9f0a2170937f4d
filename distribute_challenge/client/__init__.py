"""The user's program: from a decorated function to its result."""
