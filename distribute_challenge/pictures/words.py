"""Numbers and names as they are shown."""

from __future__ import annotations

import math


def plural(number: int, noun: str) -> str:
    """A number and what it counts.

    >>> plural(1, "client"), plural(2000, "client")
    ('1 client', '2,000 clients')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def significant(value: float) -> str:
    """A number with at least four significant digits.

    >>> significant(1.23456), significant(123456.7), significant(0)
    ('1.235', '123456.7', '0.000')
    """
    return f"{value:.1f}" if value >= 1000 else f"{value:#.4g}"


def short_time(seconds: float) -> str:
    """A time with its unit, of three significant digits; `-` if it is unknown.

    >>> short_time(2.5), short_time(0.02), short_time(3.4e-6), short_time(math.nan)
    ('2.5 s', '20 ms', '3.4 µs', '-')
    >>> short_time(0.9999), short_time(600), short_time(86_400), short_time(0)
    ('1 s', '10 min', '24 h', '0 s')
    """
    if math.isnan(seconds):
        return "-"
    for size, unit, most in ((1e-6, "µs", 999.5), (1e-3, "ms", 999.5), (1, "s", 300), (60, "min", 300)):
        if 0 < seconds / size < most:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:,.3g} h" if seconds else "0 s"


def printable(text: str) -> str:
    """A name that somebody else has given, without what a terminal would take for a command.

    >>> printable("func"), printable("\\x1b[2Jfunc")
    ('func', '?[2Jfunc')
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def shortened(text: str, length: int) -> str:
    """A printable text, or as much of it as fits, with dots behind.

    >>> shortened("simulate", 8), shortened("simulate_all", 8)
    ('simulate', 'simula..')
    """
    text = printable(text)
    return text if len(text) <= length else text[: length - 2] + ".."
