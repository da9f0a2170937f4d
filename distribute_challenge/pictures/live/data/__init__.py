"""A record, read as it grows, in the shapes that a page shows."""
