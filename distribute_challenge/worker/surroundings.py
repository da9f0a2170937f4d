"""The process around a function: what it may change, and the next one must find as it was.

After each function is put back what can be at next to no cost, or only if it was touched. docs/reliability.md
lists what is not.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import gc
import operator
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

_OF_SYS = ("argv", "path", "meta_path", "path_hooks", "path_importer_cache", "modules")
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_NAMES = ("encoding", "errors", "line_buffering", "write_through")
_SETTINGS = operator.attrgetter(*_NAMES)
_HOOKS = ("excepthook", "displayhook", "unraisablehook", "breakpointhook")

# Bound here, since a function may have taken them away.
_modules, _builtins, _builtins_count, _size = sys.modules, vars(builtins), len(vars(builtins)), len


def end_if_ruined() -> None:
    """End this process if a function has taken away what Python needs: another one could only fail.

    Its caller learns that as the end of the worker, before any answer.
    """
    has_modules = "builtins" in _modules and "sys" in _modules and "os" in _modules and __name__ in _modules
    if not has_modules or _size(_builtins) < _builtins_count:
        os.write(2, b"this worker ends: its function has removed modules from sys.modules, or builtins\n")
        os._exit(1)


class Timers:
    """The timers of this process, all of them off when this is made. Only for the main thread."""

    def __init__(self) -> None:
        self._are_touched = False
        signal.setitimer = _noted(signal.setitimer, self._note)
        signal.alarm = _noted(signal.alarm, self._note)

    def stop(self) -> None:
        """Stop those that were set."""
        if self._are_touched:
            for timer in _TIMERS:
                signal.setitimer(timer, 0)
            self._are_touched = False

    def _note(self, *_: Any) -> None:
        self._are_touched = True


class Surroundings:
    """The state of the process as it was when this was made. Only for the main thread."""

    def __init__(self, make_stream: Callable[[int], TextIO]) -> None:
        self._make_stream = make_stream
        # A descriptor finds the directory again even if it is renamed or removed.
        self._directory = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._environ = os.environ
        self._environment = dict(os.environ)
        self._touched: set[Any] = set()  # what was set or removed, by `os.environ` or below it
        os.putenv = _noted(os.putenv, lambda name, *_: self._touched.add(name))
        os.unsetenv = _noted(os.unsetenv, self._touched.add)
        self._handlers: dict[int, Any] = {
            number: signal.getsignal(number) for number in signal.valid_signals()
        }
        self._signals: set[int] = set()  # whose handler was set
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._masked: set[int] = set()  # not empty: the mask was set
        signal.signal = _noted(signal.signal, lambda signalnum, *_, **__: self._signals.add(signalnum))
        signal.pthread_sigmask = _noted(signal.pthread_sigmask, lambda how, *_, **__: self._masked.add(how))
        self._trace, self._profile = sys.gettrace(), sys.getprofile()
        self._recursion_limit = sys.getrecursionlimit()
        self._switch_s = sys.getswitchinterval()
        self._of_sys = {name: getattr(sys, name) for name in (*_OF_SYS, *_HOOKS)}
        self._path, self._argv = list(sys.path), list(sys.argv)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._settings = _SETTINGS(sys.stdout)
        # Copies of descriptors 0 to 2, for a function that closes or redirects those.
        self._descriptors = [os.dup(number) for number in range(3)]

    def restore(self) -> None:
        """Put everything back."""
        for stream in self._streams[1:]:
            try:
                stream.flush()
            except (ValueError, OSError):  # Closed, or its descriptor is: what was printed last is lost.
                continue
        for number, copy in enumerate(self._descriptors):
            os.dup2(copy, number)
        self._streams = self._usable_streams()
        vars(sys).update(self._of_sys)
        sys.stdin, sys.stdout, sys.stderr = self._streams
        sys.path[:], sys.argv[:] = self._path, self._argv
        os.fchdir(self._directory)
        os.umask(self._umask)
        os.environ = self._environ  # noqa: B003  A function may have put another object there.
        if self._touched:
            self._restore_environment()
        if self._signals or self._masked:
            self._restore_signals()
        sys.setrecursionlimit(self._recursion_limit)
        sys.setswitchinterval(self._switch_s)
        if sys.gettrace() is not self._trace or sys.getprofile() is not self._profile:
            sys.settrace(self._trace)
            sys.setprofile(self._profile)
        gc.enable()
        socket.setdefaulttimeout(None)
        pyplot: Any = _modules.get("matplotlib.pyplot")
        if pyplot is not None:
            with contextlib.suppress(Exception):  # A figure may have a callback of the function's.
                pyplot.close("all")

    def _restore_environment(self) -> None:
        names = {os.fsdecode(name) for name in self._touched if isinstance(name, str | bytes)}
        for name in names:
            if name in self._environment:
                os.environ[name] = self._environment[name]
            else:
                # It is not there, and may be so below; or it was tried only, and is no name of a variable.
                with contextlib.suppress(KeyError, ValueError, OSError):
                    del os.environ[name]
        if "TZ" in names:
            time.tzset()
        self._touched.clear()

    def _restore_signals(self) -> None:
        for number in tuple(self._signals):
            handler = self._handlers.get(number)
            if handler is not None:  # None: it was not set by Python, which then cannot set it.
                with contextlib.suppress(OSError):  # It was tried only: nobody sets that of SIGKILL.
                    signal.signal(number, handler)
        if self._masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        self._signals.clear()
        self._masked.clear()

    def _usable_streams(self) -> Any:
        stdin, stdout, stderr = self._streams
        return (
            stdin if _is_usable(stdin) else open(0, closefd=False),
            self._with_settings(stdout, 1),
            self._with_settings(stderr, 2),
        )

    def _with_settings(self, stream: Any, number: int) -> Any:
        """A stream that works as it did at first: this one, or another if this does not work."""
        if not _is_usable(stream):
            return self._make_stream(number)
        if _SETTINGS(stream) != self._settings:
            stream.reconfigure(**dict(zip(_NAMES, self._settings, strict=True)))
        return stream


def _noted(function: Callable[..., Any], note: Callable[..., object]) -> Callable[..., Any]:
    """A function of the standard library, of whose calls a note is taken."""

    @functools.wraps(function)
    def noted(*args: Any, **kwargs: Any) -> Any:
        note(*args, **kwargs)
        return function(*args, **kwargs)

    return noted


def _is_usable(stream: Any) -> bool:
    try:
        return not stream.closed
    except ValueError:  # It was detached from its descriptor.
        return False
