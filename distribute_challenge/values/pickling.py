"""The pickler for functions, classes and values, in both directions: cloudpickle's, with differences."""

from __future__ import annotations

import functools
import io
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle

from distribute_challenge.values.classes import by_token, with_token
from distribute_challenge.values.code import names_of
from distribute_challenge.values.definition import Definition
from distribute_challenge.values.functions import (
    annotations_of,
    content_of,
    fill_cell,
    fill_function,
    globals_of,
    load_text,
    make_function,
    reduce_code,
    texts,
    values_of,
)
from distribute_challenge.values.making import Reduced, make_dispatch
from distribute_challenge.values.names import is_importable, name_of
from distribute_challenge.values.objects import ObjectPickler

_DISPATCH = functools.singledispatch(lambda _: None).__code__  # type: ignore[attr-defined]


class ValuePickler(ObjectPickler):
    """Writes functions, classes and values. `large` takes the large buffers out, if it is given."""

    crosses_versions = False  # whether the receiver has another version of Python

    def __init__(self, file: io.BytesIO, large: Callable[[pickle.PickleBuffer], Any] | None = None) -> None:
        super().__init__(file, large)
        self._cells_of_functions: dict[int, types.CellType] = {}

    # What the two directions do in their own ways

    def text_of(
        self, code: types.CodeType, namespace: dict[str, Any] | None
    ) -> tuple[str | None, Definition] | None:
        """The text to be written for a code object, and how to compile it; None if it has none."""
        del namespace
        return texts.get(code)

    def note_function(self, function: types.FunctionType) -> None:
        """Called for each function that travels by value."""

    def note_class(self, cls: type) -> None:
        """Called for each class that travels by value."""

    # What is written

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for all that is not of a plain type."""
        kind: Any = type(obj)
        if self.has_only_dict(obj):
            return NotImplemented
        if kind is types.FunctionType:
            return self._reduce_function(obj)
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if kind is types.CodeType:
            return self._reduce_code(obj)
        if kind is types.CellType:
            content = () if id(obj) in self._cells_of_functions else content_of(obj)
            return types.CellType, (), content, None, None, fill_cell
        if issubclass(kind, types.ModuleType):
            return self._reduce_module(obj)
        if kind is functools.cached_property:
            return kind, (obj.func,), {"attrname": obj.attrname}
        if kind is functools.partialmethod:
            return functools.partial(kind, **obj.keywords), (obj.func, *obj.args)
        if kind is io.TextIOWrapper and not (obj is sys.stdout or obj is sys.stderr):
            # cloudpickle would send its text in a StringIO.
            raise TypeError("an open file does not travel")
        if kind is weakref.WeakSet and len(obj):
            raise TypeError("the members of a WeakSet do not travel, if nothing else holds them")
        if kind is types.MethodType or not self.has_way(kind):
            return self.reduce_object(obj, kind)
        return NotImplemented

    def _reduce_function(self, function: types.FunctionType) -> Any:
        name = name_of(function)
        if name is not None:
            return self.by_name(name, function.__qualname__)
        code = function.__code__
        if code is _DISPATCH:
            others = dict(function.registry)  # type: ignore[attr-defined]
            return make_dispatch, (others.pop(object), others)
        self.note_function(function)
        self.text_of(code, function.__globals__)  # Cached: `_reduce_code` finds it without the global names.
        module, namespace = self.module_of(function.__globals__)
        cells = function.__closure__ or ()
        self._cells_of_functions.update((id(cell), cell) for cell in cells)
        used = [value for _, value in values_of(function)]
        state = (
            self._attributes_of(function, module),
            globals_of(function),
            tuple(map(content_of, cells)),
            tuple(_submodules(used, names_of(code).all)),
        )
        arguments = (code, namespace, function.__name__, function.__closure__)
        return make_function, arguments, state, None, None, fill_function

    def _attributes_of(self, function: types.FunctionType, module: str) -> dict[str, Any]:
        """The attributes to set on a function that has just been made of its code."""
        made = types.FunctionType(
            function.__code__, {"__name__": module}, function.__name__, None, function.__closure__
        )
        attributes: dict[str, Any] = {}
        for name in ("__qualname__", "__module__", "__doc__"):
            value = getattr(function, name)
            if value != getattr(made, name) or self.crosses_versions:
                attributes[name] = value
        annotations = annotations_of(function)
        which = "__annotate__" if annotations is None else "__annotations__"
        for name in ("__defaults__", "__kwdefaults__", "__type_params__", which, "__dict__"):
            if value := getattr(function, name, None):
                attributes[name] = value
        return attributes

    def _reduce_code(self, code: types.CodeType) -> Reduced:
        text = self.text_of(code, None)
        if text is None:
            return reduce_code(code)
        source, definition = text
        scopes: Any = tuple(map(tuple, definition.scopes))
        return load_text, (source, tuple(definition._replace(scopes=scopes)))

    def _reduce_class(self, cls: type) -> Any:
        name = name_of(cls)
        if name is not None:
            return self.by_name(name, cls.__qualname__)
        if type(cls).__module__.partition(".")[0] == "msgspec":
            raise TypeError(
                f"the class {cls.__qualname__}, a msgspec.Struct, travels only from a module of its own"
            )
        self.note_class(cls)
        module = sys.modules.get(cls.__module__)
        if module is not None and module.__name__ == cls.__module__ and not is_importable(module):
            cloudpickle.register_pickle_by_value(module)  # Else it writes the class by its name.
        reduced = super().reducer_override(cls)
        if reduced is NotImplemented or len(reduced) != 6:
            return reduced
        return with_token(cls, reduced)

    def _reduce_module(self, module: types.ModuleType) -> Any:
        name = getattr(module, "__name__", "")
        if is_importable(module):
            self.note_module(name)
            return NotImplemented
        if sys.modules.get("__main__") is module:
            raise TypeError("the script itself, as the module __main__, does not travel, but its names do")
        namespace = vars(module)
        if id(namespace) not in self.namespaces:
            self.stand_ins(namespace, name, namespace.get("__package__"))
        stand_in = self.namespaces[id(namespace)][0]
        content = {name: value for name, value in namespace.items() if name != "__builtins__"}
        return _itself, (stand_in,), content


class ReplyPickler(ValuePickler):
    """Writes results and exceptions for a caller. A class that came from there goes back as itself."""

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for all that is not of a plain type."""
        if issubclass(type(obj), type) and (reduced := by_token(obj)) is not None:
            return reduced
        return super().reducer_override(obj)

    def receiver_has(self, cls: type) -> bool:
        """Whether the caller has a class already."""
        return by_token(cls) is not None or super().receiver_has(cls)


def _submodules(values: Iterable[Any], names: set[str]) -> Iterator[types.ModuleType]:
    """The submodules that are reached through packages: `import xml.dom` binds only `xml`."""
    for package in values:
        if isinstance(package, types.ModuleType) and hasattr(package, "__path__"):
            prefix = f"{package.__name__}."
            for name, module in list(sys.modules.items()):
                is_inside = name.startswith(prefix) and module is not None
                if is_inside and names.issuperset(name.removeprefix(prefix).split(".")):
                    yield module


def _itself(module: types.ModuleType) -> types.ModuleType:
    return module
