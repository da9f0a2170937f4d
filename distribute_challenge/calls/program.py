"""Which program's functions run in this process, and what its initializer has set up for them.

That goes on top of what each call brings: names in the modules that were made for a call, attributes of the
functions there and of the classes of the script, and the context. (An executor that has an initializer is a
program of its own.)
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from distribute_challenge.calls.payload import NO_PROGRAM
from distribute_challenge.values.classes import copies, delete_attribute, restore, set_attribute
from distribute_challenge.values.fingerprints import Fingerprint, fingerprint_of
from distribute_challenge.values.functions import MadeModules

# Where something may be set, by what tells it apart in each call: a number, a token, or a number and a name.
_Holders = dict[Any, Any]
Seen = dict[Any, dict[str, tuple[Any, Fingerprint]]]

_GONE = object()  # in place of the value of a name that there is no more


class Program:
    """A program, by what tells it apart."""

    def __init__(self) -> None:
        self.id = os.urandom(len(NO_PROGRAM))


# Its own, or on a worker the one that called.
current = Program()


def look(modules: MadeModules) -> Seen:
    """What is there before the initializer runs. What a value holds may change as well, as in a dict."""
    return {
        key: {name: (value, fingerprint_of(value)) for name, value in list(vars(holder).items())}
        for key, holder in _holders(modules).items()
    }


class Process:
    """What an initializer may set up of its process: variables of the environment, the folder, the path of
    modules, and how deep functions may call each other."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self.folder = ""
        with contextlib.suppress(FileNotFoundError):  # Somebody has removed it.
            self.folder = str(Path.cwd())
        self.path = list(sys.path)
        self.depth = sys.getrecursionlimit()

    def since(self, before: Process) -> Iterator[Callable[[], object]]:
        """What sets up what is not as it was before."""
        for name in before.environment.keys() - self.environment.keys():
            yield partial(os.environ.pop, name, None)
        for name, value in self.environment.items() - before.environment.items():
            yield partial(os.environ.__setitem__, name, value)
        if self.environment.get("TZ") != before.environment.get("TZ"):
            yield time.tzset
        if self.folder not in ("", before.folder):
            yield partial(_go_to, self.folder)
        if self.path != before.path:
            yield partial(_set_path, self.path, before.path)
        if self.depth != before.depth:
            yield partial(sys.setrecursionlimit, self.depth)


def _go_to(folder: str) -> None:
    with contextlib.suppress(OSError):  # A function may have removed it, and others do not need it.
        os.chdir(folder)


def _set_path(path: list[str], before: list[str]) -> None:
    """Behind it come the folders of the program."""
    sys.path[:] = [*path, *(folder for folder in sys.path if folder not in before)]


class Setup:
    """What has changed since `look`, and since `process` was made."""

    def __init__(self, modules: MadeModules, before: Seen, process: Process) -> None:
        self.context = contextvars.copy_context()
        self._steps = list(Process().since(process))
        self._changes: dict[Any, dict[str, Any]] = {}
        for key, holder in _holders(modules).items():
            old, now = before.get(key, {}), dict(vars(holder))
            changes = dict.fromkeys(old.keys() - now.keys(), _GONE)
            for name, value in now.items():
                if name not in old or _has_changed(*old[name], value):
                    changes[name] = value
            if changes:
                self._changes[key] = changes
        self._note_classes()

    def restore(self) -> None:
        """Undo what the last function has done to classes, which the next may not bring."""
        restore(self._classes)

    def set_up_process(self) -> None:
        """Do to the process what the initializer has done: after each call that is put back."""
        for step in self._steps:
            step()

    def bind(self, modules: MadeModules) -> None:
        """Let the functions of a call find it."""
        holders = _holders(modules) if self._changes else {}
        for key in self._changes.keys() & holders.keys():
            for name, value in self._changes[key].items():
                _set(holders[key], name, value)
        self._note_classes()

    def _note_classes(self) -> None:
        self._classes = {cls: dict(vars(cls)) for cls in copies().values()}


def _holders(modules: MadeModules) -> _Holders:
    holders: _Holders = {**modules, **copies()}
    for key, module in modules.items():
        for name, value in list(vars(module).items()):
            if type(value) is types.FunctionType:
                holders[key, name] = value
    return holders


def _has_changed(old: Any, fingerprint: Fingerprint, value: Any) -> bool:
    return old is not value or fingerprint.digest != fingerprint_of(value).digest


def _set(holder: Any, name: str, value: Any) -> None:
    is_class = isinstance(holder, type)
    if value is not _GONE:
        (set_attribute if is_class else setattr)(holder, name, value)
    elif name in vars(holder):
        (delete_attribute if is_class else delattr)(holder, name)
