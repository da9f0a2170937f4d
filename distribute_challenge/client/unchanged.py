"""Whether a function that was written for workers before would be written the same now.

To write a function takes longer than all else in a short call. It need not be done again while the function,
and the functions of its module that it calls, use nothing but names that are bound to the same constants as
before: numbers, texts, modules. Whoever uses anything that may change inside is written each time.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from distribute_challenge.client.sending import Subject, names_of
from distribute_challenge.wire.payload import PLAIN_TYPES
from distribute_challenge.wire.reuse import are_plain, is_bare, travels_by_name

_UNBOUND = object()


class _Changeable(Exception):
    """Something that the function uses may change without being bound anew."""


class Unchanged:
    """What a function used when it was written."""

    def __init__(self, subject: Subject) -> None:
        """Raises `_Changeable`: use `watch`."""
        assert subject.text is not None
        self._subject = subject
        self._functions: dict[types.FunctionType, tuple[types.CodeType, Any]] = {}
        self._names: list[tuple[dict[str, Any], str, Any]] = []
        self._modules = 0  # how many there are; of a package, what has been imported of it travels too
        self._add(subject.text.inner)

    def still_holds(self) -> bool:
        """Whether all is as it was."""
        for function, (code, defaults) in self._functions.items():
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or not is_bare(function)
            ):
                return False
        if self._modules and self._modules != len(sys.modules):
            return False
        return all(scope.get(name, _UNBOUND) is value for scope, name, value in self._names)

    def _add(self, function: types.FunctionType) -> None:
        if function in self._functions:
            return
        if function.__closure__ or not is_bare(function) or not are_plain(function.__defaults__ or ()):
            raise _Changeable
        self._functions[function] = function.__code__, function.__defaults__
        scope = function.__globals__
        for name in names_of(function.__code__).globals:
            value = scope.get(name, _UNBOUND)
            self._names.append((scope, name, value))
            if value is _UNBOUND or type(value) in PLAIN_TYPES:
                continue
            if type(value) is types.FunctionType and value.__globals__ is scope:
                self._add(value)
            elif type(value) is types.ModuleType and travels_by_name(value):
                if hasattr(value, "__path__"):
                    self._modules = len(sys.modules)
            elif not (name == function.__name__ and self._subject.is_itself(value)):
                raise _Changeable


def watch(subject: Subject) -> Unchanged | None:
    """What the function uses now; None if that may change without a trace."""
    if subject.text is None or subject.text.definition.decorated:
        return None
    try:
        return Unchanged(subject)
    except _Changeable:
        return None
