"""What the user's own module imports."""


def doubled(x: int) -> int:
    """Twice."""
    return 2 * x
