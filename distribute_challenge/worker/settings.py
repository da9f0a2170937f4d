"""What a program sets up for itself in the libraries of a worker, and finds again when its next call comes.

Looking at all of it takes longer than a short call: it is changed only when another program's call comes.
"""

from __future__ import annotations

import builtins
import contextlib
import locale
import logging
import sys
import warnings
from typing import Any

_RANDOM = {"random": ("getstate", "setstate"), "numpy.random": ("get_state", "set_state")}


class Settings:
    """The settings as they are when this is made: logging's root, warnings, locale, built-in names, and the
    states of random generators.

    With `is_first`, those that a new program finds: its random numbers are its own.
    """

    def __init__(self, *, is_first: bool = False) -> None:
        root = logging.getLogger()
        self._logging = root.level, root.manager.disable, root.handlers[:], root.filters[:]
        self._warnings = warnings.filters[:]
        self._locale = locale.setlocale(locale.LC_ALL)
        self._builtins = dict(vars(builtins))
        self._random: dict[str, Any] = {}
        for name, (get, _) in {} if is_first else _RANDOM.items():
            if (module := sys.modules.get(name)) is not None:
                self._random[name] = getattr(module, get)()

    def apply(self) -> None:
        """Make them the settings of this process."""
        root = logging.getLogger()
        level, disabled, root.handlers[:], root.filters[:] = self._logging
        root.setLevel(level)
        logging.disable(disabled)
        warnings.resetwarnings()  # So that `warnings` takes note of the change.
        warnings.filters[:] = self._warnings  # type: ignore[index]
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, self._locale)
        for name in vars(builtins).keys() - self._builtins.keys():
            delattr(builtins, name)
        vars(builtins).update(self._builtins)
        for name, (_, put) in _RANDOM.items():
            if (module := sys.modules.get(name)) is not None:
                if name in self._random:
                    getattr(module, put)(self._random[name])
                else:
                    module.seed()
