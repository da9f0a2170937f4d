"""Numbers in words."""

from __future__ import annotations


def plural(number: int, noun: str) -> str:
    """A number and what it counts.

    >>> plural(1, "client"), plural(2, "client")
    ('1 client', '2 clients')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def significant(value: float) -> str:
    """A number with at least four significant digits.

    >>> significant(1.23456), significant(123456.7), significant(0)
    ('1.235', '123456.7', '0.000')
    """
    return f"{value:.1f}" if value >= 1000 else f"{value:#.4g}"


def short_time(seconds: float) -> str:
    """A short time with its unit.

    >>> short_time(2.5), short_time(0.02)
    ('2.5 s', '20 ms')
    """
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
