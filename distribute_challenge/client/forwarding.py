"""What functions log on workers, to this program's loggers."""

from __future__ import annotations

import logging

from distribute_challenge.calls.logs import forwarded


def forward_logging(logger_name: str | None = None, level: int | str = logging.NOTSET) -> None:
    """From now on, let what this program's functions log on workers reach its loggers of the same names.

    `logger_name` is the logger that is forwarded, with those below it; by default all are. `level`, a number
    or a name of `logging`'s, is the least that is. What the logger here is not enabled for is not even made
    there. Records come in order with what the functions print, and say which process made them. Tracebacks
    are part of their text. Raises ValueError or TypeError if there is no such level.

    >>> import logging
    >>> forward_logging()  # doctest: +SKIP
    >>> forward_logging("sqlalchemy", logging.WARNING)
    """
    if not isinstance(logger_name, str | None):
        raise TypeError(f"logger_name is the name of a logger, or None for all, not {logger_name!r}")
    forwarded["" if logger_name in (None, "root") else logger_name] = logging.NullHandler(level).level
