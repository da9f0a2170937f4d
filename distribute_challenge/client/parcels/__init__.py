"""A function and its arguments -> the bytes of a call. Knows no connections."""
