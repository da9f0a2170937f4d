"""The pickler for functions, classes and values, in both directions.

It is cloudpickle's pickler, with three differences. A code object is written as its text, if it has one.
What the receiver can import is written as its name. And where cloudpickle's copy differs from the original,
or refers to the receiver's own `__main__`, this one writes it right, or refuses it.
"""

from __future__ import annotations

import enum
import functools
import io
import operator
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle

from distribute_challenge.values import PROTOCOL
from distribute_challenge.values.classes import by_token, with_token
from distribute_challenge.values.code import names_of
from distribute_challenge.values.definition import Definition
from distribute_challenge.values.functions import (
    SCRIPT,
    Reduced,
    annotations_of,
    content_of,
    fill_cell,
    fill_function,
    fill_object,
    globals_of,
    load_module,
    load_singleton,
    load_text,
    make_cached,
    make_cached_property,
    make_dispatch,
    make_exception,
    make_function,
    make_partial_method,
    make_type,
    reduce_code,
    texts,
    values_of,
)
from distribute_challenge.values.names import Name, importable_module, is_importable, load_name, name_of

_DISPATCH = functools.singledispatch(lambda _: None).__code__  # type: ignore[attr-defined]
_LruCache = type(functools.lru_cache(abs))
# Of typing, and what they are made of: what their constructors take after the name.
_TYPES: dict[str, Callable[[Any], tuple[Reduced, dict[str, Any]]]] = {
    "NewType": lambda made: ((made.__supertype__,), {}),
    "ParamSpec": lambda made: (
        (),
        {"infer_variance": True} if getattr(made, "__infer_variance__", 0) else {},
    ),
    "TypeVarTuple": lambda _: ((), {}),
    "TypeAliasType": lambda made: ((made.__value__,), {"type_params": made.__type_params__}),
}


class _StandIn:
    """Stands for something in one pickle: what it is there is in `reduced`."""

    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> Reduced:
        return self._reduced


class ValuePickler(cloudpickle.Pickler):
    """Writes functions, classes and values. `large` takes the large buffers out, if it is given."""

    def __init__(self, file: io.BytesIO, large: Callable[[pickle.PickleBuffer], Any] | None = None) -> None:
        super().__init__(file, PROTOCOL, buffer_callback=large)
        self._modules: dict[int, tuple[Any, _StandIn]] = {}  # for global names: the module, and they
        self._cells_of_functions: dict[int, types.CellType] = {}
        self._dict_only: set[type] = set()  # types whose objects are pickled by their `__dict__` alone
        self._singletons: dict[type, dict[int, tuple[types.ModuleType, str]]] = {}

    # What the two directions do in their own ways

    def text_of(
        self, code: types.CodeType, namespace: dict[str, Any] | None
    ) -> tuple[str | None, Definition] | None:
        """The text to be written for a code object, and how to compile it; None if it has none."""
        del namespace
        return texts.get(code)

    def note_module(self, module: str) -> None:
        """Take note of a module that the receiver has to import."""

    def note_function(self, function: types.FunctionType) -> None:
        """Called for each function that travels by value."""

    def check_methods(self, cls: type) -> None:
        """Called for each class that travels by value."""

    def receiver_has(self, cls: type) -> bool:
        """Whether the receiver has a class already."""
        return name_of(cls) is not None

    @property
    def crosses_versions(self) -> bool:
        """Whether the receiver has another version of Python."""
        return False

    # What is written

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for all that is not of a plain type."""
        kind = type(obj)
        if kind in self._dict_only:
            content = obj.__dict__
            if content and "__qualname__" not in content and dict not in map(type, content.values()):
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
            return make_cached_property, (obj.func, obj.attrname)
        if kind is functools.partialmethod:
            return make_partial_method, (obj.func, obj.args, obj.keywords)
        if kind is io.TextIOWrapper and not (obj is sys.stdout or obj is sys.stderr):
            # cloudpickle would send its text in a StringIO.
            raise TypeError("an open file does not travel: open it inside the function")
        if kind is weakref.WeakSet and len(obj):
            raise TypeError("the members of a WeakSet do not travel, if nothing else holds them")
        if kind not in self.dispatch_table or kind is types.MethodType:
            return self._reduce_other(obj, kind)
        return NotImplemented

    def _reduce_function(self, function: types.FunctionType) -> Any:
        name = name_of(function)
        if name is not None:
            return self._by_name(name, function.__qualname__)
        code = function.__code__
        if code is _DISPATCH:
            others = dict(function.registry)  # type: ignore[attr-defined]
            return make_dispatch, (others.pop(object), others)
        self.note_function(function)
        self.text_of(code, function.__globals__)  # Cached: `_reduce_code` finds it without the global names.
        module, namespace = self._module_of(function.__globals__)
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
        """What is to be set on a function that has just been made of its code."""
        made = types.FunctionType(
            function.__code__, {"__name__": module}, function.__name__, None, function.__closure__
        )
        attributes: dict[str, Any] = {}
        for name in ("__qualname__", "__module__", "__doc__"):
            value = getattr(function, name)
            if value != getattr(made, name) or self.crosses_versions:
                attributes[name] = value
        for name in ("__defaults__", "__kwdefaults__", "__type_params__"):
            if value := getattr(function, name, None):
                attributes[name] = value
        annotations = annotations_of(function)
        if annotations is None:
            attributes["__annotate__"] = function.__annotate__  # type: ignore[attr-defined]
        elif annotations:
            attributes["__annotations__"] = annotations
        if function.__dict__:
            attributes["__dict__"] = function.__dict__
        return attributes

    def _module_of(self, scope: dict[str, Any]) -> tuple[str, _StandIn]:
        """The name of the module that has these global names, and what stands for them."""
        name = importable_module(scope)
        own = scope.get("__name__")
        own = own if type(own) is str else "__main__"
        if id(scope) not in self._modules:
            if name is None:
                package = scope.get("__package__")
                self._stand_ins(scope, own, package if type(package) is str else None)
            else:
                self.note_module(name)
                module = sys.modules[name]
                self._modules[id(scope)] = module, _StandIn(vars, (module,))
        return name or own, self._modules[id(scope)][1]

    def _stand_ins(self, scope: dict[str, Any], name: str, package: str | None) -> _StandIn:
        """For a module that cannot be imported: what stands for it."""
        # The script is the same one in all calls; others are told apart by where they are in memory.
        key = SCRIPT if scope is vars(sys.modules["__main__"]) else id(scope)
        module = _StandIn(load_module, (key, name, package))
        self._modules[id(scope)] = module, _StandIn(vars, (module,))
        return module

    def _reduce_code(self, code: types.CodeType) -> Reduced:
        text = self.text_of(code, None)
        if text is None:
            return reduce_code(code)
        source, definition = text
        return load_text, (
            source,
            tuple(definition._replace(scopes=tuple(map(tuple, definition.scopes)))),  # type: ignore[arg-type]
        )

    def _reduce_class(self, cls: type) -> Any:
        name = name_of(cls)
        if name is not None:
            return self._by_name(name, cls.__qualname__)
        if type(cls).__module__.partition(".")[0] == "msgspec":
            raise TypeError(
                f"the class {cls.__qualname__}, a msgspec.Struct, travels only from a module of its own"
            )
        self.check_methods(cls)
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
            raise TypeError("the script itself, as the module __main__, does not travel: use its names")
        scope = vars(module)
        known = self._modules.get(id(scope))
        stand_in = known[0] if known is not None else self._stand_ins(scope, name, scope.get("__package__"))
        content = {name: value for name, value in scope.items() if name != "__builtins__"}
        return _itself, (stand_in,), content

    def _reduce_other(self, obj: Any, kind: type) -> Any:
        name = name_of(obj)
        if name is not None:
            return self._by_name(name)
        if kind is _LruCache:
            parameters = obj.cache_parameters()
            attributes = {k: v for k, v in vars(obj).items() if k not in ("__wrapped__", "cache_parameters")}
            return make_cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"]), attributes
        if isinstance(obj, enum.Enum) and type(obj).__members__.get(obj._name_) is obj:
            return operator.getitem, (kind, obj._name_)  # Its value may be another one there.
        if kind is types.MethodType and self._is_found(obj):
            return getattr, (obj.__self__, obj.__func__.__name__)
        if kind in self.dispatch_table:
            return NotImplemented
        reduced = obj.__reduce_ex__(PROTOCOL)
        if type(reduced) is str:
            return self._reduce_by_own_name(obj, kind, reduced)
        make, arguments, *rest = reduced
        state = rest[0] if rest else None
        own: Any = kind
        is_usual = own.__reduce_ex__ is object.__reduce_ex__ and own.__reduce__ is object.__reduce__
        if kind.__module__ == "sys" or (is_usual and arguments == (kind,) and not any(rest)):
            return self._reduce_singleton(obj, kind, reduced)
        if issubclass(kind, BaseException) and make is kind and type(own.__init__) is types.FunctionType:
            return make_exception, (kind, arguments), *rest
        arguments = tuple(map(self._by_namespace, arguments))
        if state is None:
            return make, arguments, *rest
        state = self._with_namespaces(state)
        if not is_usual:
            return make, arguments, state, *rest[1:]
        if hasattr(kind, "__getattr__") and not hasattr(kind, "__setstate__"):
            # Unpickling looks up `__setstate__` on the empty object, which would call this `__getattr__`.
            return make, arguments, state, *(*rest[1:], None, None)[:2], fill_object
        if "__dict__" in dir(kind) and not hasattr(kind, "__getattr__"):
            self._dict_only.add(kind)
        return make, arguments, state, *rest[1:]

    def _is_found(self, method: types.MethodType) -> bool:
        """Whether a bound method is what its object, or class, has under that name, also at the receiver."""
        owner = method.__self__
        cls = owner if isinstance(owner, type) else type(owner)
        try:
            return self.receiver_has(cls) and getattr(owner, method.__func__.__name__) == method
        except Exception:  # There is none, or there is something that raises whatever it likes.
            return False

    def _by_namespace(self, value: Any) -> Any:
        """What stands for the global names of a module, if that is what it is."""
        if type(value) is not dict or type(name := value.get("__name__")) is not str:
            return value
        scope: dict[str, Any] = value
        is_modules = getattr(sys.modules.get(name), "__dict__", None) is scope
        return self._module_of(scope)[1] if is_modules else value

    def _with_namespaces(self, state: Any) -> Any:
        """The content of an object, in which the global names of a module are those of that module there."""
        if type(state) is tuple and len(state) == 2:  # With slots.
            changed = tuple(map(self._with_namespaces, state))
            return state if all(map(operator.is_, changed, state)) else changed
        if type(state) is dict and dict in map(type, state.values()):
            values = list(map(self._by_namespace, state.values()))
            if not all(map(operator.is_, values, state.values())):
                return dict(zip(state, values, strict=True))
        return state

    def _reduce_by_own_name(self, obj: Any, kind: type, path: str) -> Any:
        """What says itself that it is found by a name."""
        name = pickle.whichmodule(obj, path)  # type: ignore[attr-defined]
        module = sys.modules.get(name)
        if module is not None and is_importable(module) and _has(module, path, obj):
            self.note_module(name)
            return path
        if kind.__module__ in ("typing", "typing_extensions") and kind.__name__ in _TYPES:
            arguments, options = _TYPES[kind.__name__](obj)
            return make_type, (kind.__name__, obj.__name__, obj.__module__, arguments, options)
        raise TypeError(
            f"{path}, a {kind.__qualname__}, is found by its name alone, and workers do not have the script: "
            "put it into a module of its own"
        )

    def _reduce_singleton(self, obj: Any, kind: type, reduced: Any) -> Any:
        """Something without content, of which there may be but one: then it is known by what it is."""
        known = self._singletons.get(kind)
        if known is None:
            known = self._singletons[kind] = {
                id(value): (module, name)
                for module in _modules_with(kind)
                for name, value in list(vars(module).items())
                if type(value) is kind
            }
        if id(obj) not in known:
            return reduced
        module, name = known[id(obj)]
        if is_importable(module):
            return self._by_name(Name(module.__name__, name))
        scope = vars(module)
        self._module_of(scope)  # The script's: function and arguments have to get the same one.
        return load_singleton, (self._modules[id(scope)][0], name, *reduced[:2])

    def _by_name(self, name: Name, qualname: str | None = None) -> Any:
        """What is found by a name, which is pickle's own business for what calls itself so."""
        self.note_module(name.module)
        is_plain = name.path == qualname and not name.steps
        return NotImplemented if is_plain else (load_name, tuple(name))


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


def _has(module: types.ModuleType, path: str, obj: Any) -> bool:
    try:
        return functools.reduce(getattr, path.split("."), module) is obj
    except AttributeError:
        return False


def _modules_with(kind: type) -> Iterator[types.ModuleType]:
    """The modules that may hold the only instances of a class; the script comes first."""
    for name in ["__main__", *(list(sys.modules) if kind is object else [kind.__module__])]:
        module = sys.modules.get(name)
        if isinstance(module, types.ModuleType) and (name == "__main__" or is_importable(module)):
            yield module


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
