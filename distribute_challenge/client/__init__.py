"""What runs in the user's program: from a decorated function to its result."""
