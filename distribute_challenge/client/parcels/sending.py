"""Writes functions, classes and values for workers: code as text where it has one."""

from __future__ import annotations

import ast
import io
import pickle
import sys
import types
import warnings
from typing import Any

from distribute_challenge.calls.buffers import Collector
from distribute_challenge.calls.scattered import scattered
from distribute_challenge.client.parcels.modules import is_users
from distribute_challenge.client.parcels.parcel import Written
from distribute_challenge.client.parcels.scattered import Scattered
from distribute_challenge.client.parcels.source import find_text
from distribute_challenge.values import PROTOCOL, memmaps
from distribute_challenge.values.code import names_of
from distribute_challenge.values.definition import Definition
from distribute_challenge.values.functions import ByCode, values_of
from distribute_challenge.values.names import name_of
from distribute_challenge.values.pickling import ValuePickler

_HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
_GENERATORS = {"random.Random", "numpy.random._generator.Generator", "numpy.random.mtrand.RandomState"}
_warned: ByCode[bool] = ByCode()


class NotAcrossVersions(TypeError):
    """Something that only workers of the same Python version could take."""


class Sender(ValuePickler):
    """Writes values for workers of the version `python`, as `3.12`; None: of this one.

    The text of `called` is not written: it travels beside the call. `modules` collects the user's own modules
    that are needed to load what was written, `values` the scattered values that it refers to, `classes` those
    that travel by value. With `by_file`, workers map the files of a `numpy.memmap` themselves.
    """

    def __init__(
        self,
        file: io.BytesIO,
        called: types.CodeType | None = None,
        python: str | None = None,
        large: Collector | None = None,
        modules: set[str] | None = None,
        values: list[Scattered] | None = None,
        classes: list[type] | None = None,
        *,
        by_file: bool = False,
    ) -> None:
        super().__init__(file, large)
        self.modules = set() if modules is None else modules
        self.values = [] if values is None else values
        self.classes = [] if classes is None else classes
        self._called = called
        self._python = python or _HERE
        self.crosses_versions = self._python != _HERE
        self._by_file = by_file

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for all that is not of a plain type."""
        if type(obj) is Scattered:
            self.values.append(obj)
            self.modules |= obj.modules
            return scattered, (obj.token,)
        if self._by_file and (reduced := memmaps.by_file(obj)) is not None:
            return reduced
        return super().reducer_override(obj)

    def text_of(
        self, code: types.CodeType, namespace: dict[str, Any] | None
    ) -> tuple[str | None, Definition] | None:
        """The text to be written for a code object. Raises NotAcrossVersions if it would have to have one."""
        text = find_text(code, namespace)
        if self.crosses_versions:
            self._check_crossing(code, None if text is None else text[0])
        if text is None:
            return None
        source, definition = text
        return (None if code is self._called else source), definition

    def note_module(self, module: str) -> None:
        """Take note of a module that workers have to import."""
        if is_users(module):
            self.modules.add(module)

    def note_function(self, function: types.FunctionType) -> None:
        """Take note of the modules that a function imports when it is called."""
        for name in names_of(function.__code__).modules(function.__globals__.get("__package__") or ""):
            self.note_module(name)
        for variable, value in values_of(function):
            kind = type(value)
            is_generator = f"{kind.__module__}.{kind.__qualname__}" in _GENERATORS
            if is_generator and _warned.get(function.__code__) is None:
                _warn_of_copies(function, variable, kind)

    def note_class(self, cls: type) -> None:
        """Take note of a class, and see to it that each method has a text, if it has to have one."""
        self.classes.append(cls)
        for method in vars(cls).values() if self.crosses_versions else ():
            if type(method) is types.FunctionType and name_of(method) is None:
                try:
                    self.text_of(method.__code__, method.__globals__)
                except NotAcrossVersions as error:
                    raise NotAcrossVersions(f"the class {cls.__qualname__}, of which {error}") from None

    def _check_crossing(self, code: types.CodeType, source: str | None) -> None:
        name = getattr(code, "co_qualname", code.co_name)
        reason = "which has no text of its own"
        if source is not None:
            try:
                ast.parse(source, feature_version=(3, int(self._python.partition(".")[2])))
                return
            except SyntaxError as error:
                reason = f"whose syntax is newer ({error.msg})"
        raise NotAcrossVersions(
            f"the function {name}, {reason}, does not cross from Python {_HERE} to the workers' "
            f"{self._python}: make it inside the function instead, or start the server with this Python"
        )


def dump_scattered(arguments: Any) -> Written:
    """Arguments that are plain values and scattered ones, without the rest of what a `Sender` looks at."""
    values: list[Scattered] = []

    def reduce(value: Scattered) -> Any:
        values.append(value)
        return scattered, (value.token,)

    file = io.BytesIO()
    pickler = pickle.Pickler(file, PROTOCOL)
    pickler.dispatch_table = {Scattered: reduce}
    pickler.dump(arguments)
    modules = frozenset[str]().union(*(value.modules for value in values))
    return Written(file.getvalue(), modules, (), tuple(values))


def _warn_of_copies(function: types.FunctionType, variable: str, kind: type) -> None:
    _warned.put(function.__code__, True)
    warnings.warn(
        f"{function.__name__} uses {variable!r}, a random generator of this program: each call gets a copy "
        "of it as it is now, so all calls draw the same numbers. Give each call a seed, and make the "
        f"{kind.__name__} inside the function.",
        RuntimeWarning,
        stacklevel=_depth_of_user(),
    )


def _depth_of_user() -> int:
    """How many frames up the code is that called the pool: there a warning belongs."""
    depth, frame = 1, sys._getframe(1)
    ours = ("distribute_challenge", "cloudpickle")
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ours:
        depth, frame = depth + 1, frame.f_back
    return depth
