"""The pickler's ways with objects: what is neither a function nor a class, code or module."""

from __future__ import annotations

import enum
import functools
import io
import operator
import os
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle

from distribute_challenge.values import PROTOCOL
from distribute_challenge.values.functions import (
    SCRIPT,
    load_descriptor,
    load_module,
    load_singleton,
    load_view,
)
from distribute_challenge.values.making import (
    Reduced,
    StandIn,
    fill_exception,
    fill_object,
    make_cached,
    make_exception,
    make_type,
    slots_of,
)
from distribute_challenge.values.names import (
    Name,
    importable_module,
    is_importable,
    load_name,
    name_of,
    steps_to,
)


def _renew_cloudpickles_lock() -> None:
    cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK = threading.Lock()


# It has a lock of its own, which a thread that does not exist in a forked child may have held.
os.register_at_fork(after_in_child=_renew_cloudpickles_lock)

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


def _reduce_view(view: memoryview) -> Any:
    content = view.tobytes(), view.format, view.shape or ()
    load_view(*content)  # What cannot be made there is refused here.
    return load_view, content


class ObjectPickler(cloudpickle.Pickler):
    """Writes objects, and what stands for the modules that they refer to."""

    dispatch_table = cloudpickle.Pickler.dispatch_table.new_child(
        {
            types.GetSetDescriptorType: lambda it: (load_descriptor, (it.__objclass__, it.__name__)),
            memoryview: _reduce_view,
        }
    )

    def __init__(self, file: io.BytesIO, large: Callable[[pickle.PickleBuffer], Any] | None = None) -> None:
        super().__init__(file, PROTOCOL, buffer_callback=large)
        self.namespaces: dict[int, tuple[Any, StandIn]] = {}  # for global names: the module, and they
        self._dict_only: set[type] = set()  # types whose objects are pickled by their `__dict__` alone
        self._singletons: dict[type, dict[int, tuple[types.ModuleType, str]]] = {}

    def note_module(self, module: str) -> None:
        """Take note of a module that the receiver has to import."""

    def receiver_has(self, cls: type) -> bool:
        """Whether the receiver has a class already."""
        return name_of(cls) is not None

    def has_only_dict(self, obj: Any) -> bool:
        """Whether an object is known to be pickled by its `__dict__` alone, in which nothing is special."""
        if type(obj) not in self._dict_only:
            return False
        content = obj.__dict__
        return bool(content) and "__qualname__" not in content and dict not in map(type, content.values())

    def has_way(self, kind: type) -> bool:
        """Whether a way to pickle objects of a type is registered.

        One for all exceptions, as `import distributed` registers it, says nothing of theirs.
        """
        way = self.dispatch_table.get(kind)
        return way is not None and way is not self.dispatch_table.get(Exception)

    def reduce_object(self, obj: Any, kind: type) -> Any:
        name = name_of(obj)
        if name is not None:
            return self.by_name(name)
        if kind is _LruCache:
            parameters = obj.cache_parameters()
            attributes = {k: v for k, v in vars(obj).items() if k not in ("__wrapped__", "cache_parameters")}
            return make_cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"]), attributes
        if isinstance(obj, enum.Enum) and type(obj).__members__.get(obj._name_) is obj:
            return operator.getitem, (kind, obj._name_)  # Its value may be another one there.
        managers: Any = sys.modules.get("multiprocessing.managers")
        if managers is not None and isinstance(obj, managers.BaseProxy):
            return _with_key(obj)
        if kind is types.MethodType and self._is_found(obj):
            return getattr, (obj.__self__, obj.__func__.__name__)
        if self.has_way(kind):
            return NotImplemented
        reduced = obj.__reduce_ex__(PROTOCOL)
        if type(reduced) is str:
            return self._reduce_by_own_name(obj, kind, reduced)
        make, arguments, *rest = reduced
        state = rest[0] if rest else None
        own: Any = kind
        is_usual = own.__reduce_ex__ is object.__reduce_ex__ and own.__reduce__ is object.__reduce__
        is_empty = all(part is None or (type(part) is dict and not part) for part in rest)
        if kind.__module__ == "sys" or (is_usual and arguments == (kind,) and is_empty):
            return self._reduce_singleton(obj, kind, reduced)
        if issubclass(kind, BaseException) and make is kind:
            has_own_way = types.FunctionType in (type(own.__reduce__), type(own.__reduce_ex__))
            if not has_own_way and type(own.__init__) is types.FunctionType:
                # It may take other arguments than it has kept.
                make, arguments = make_exception, (kind, arguments)
                state = {**slots_of(obj), **(state or {})} if state is None or type(state) is dict else state
            if type(state) is dict and own.__setstate__ is BaseException.__setstate__:
                rest = [state, None, None, fill_exception]
            return make, arguments, *rest
        arguments = tuple(map(self._by_namespace, arguments))
        if state is None:
            return make, arguments, *rest
        state = self._with_namespaces(state)
        has_getattr = hasattr(kind, "__getattr__")
        if is_usual and has_getattr and not hasattr(kind, "__setstate__"):
            # Unpickling looks up `__setstate__` on the empty object, which would call this `__getattr__`.
            return make, arguments, state, *(*rest[1:], None, None)[:2], fill_object
        if is_usual and not has_getattr and "__dict__" in dir(kind):
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
        """The stand-in for the global names of a module, if `value` is one; else `value`."""
        if type(value) is not dict or type(name := value.get("__name__")) is not str:
            return value
        namespace: dict[str, Any] = value
        is_modules = getattr(sys.modules.get(name), "__dict__", None) is namespace
        return self.module_of(namespace)[1] if is_modules else value

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
        """The reduced form of an object whose `__reduce__` gives a name."""
        try:
            name = pickle.whichmodule(obj, path)  # type: ignore[attr-defined]
        except pickle.PicklingError:  # From Python 3.14 on, if the object's own module does not have it.
            name = ""
        module = sys.modules.get(name)
        if module is not None and is_importable(module) and steps_to(obj, module, path) == 0:
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
            return self.by_name(Name(module.__name__, name))
        namespace = vars(module)
        self.module_of(namespace)  # The script's: function and arguments have to get the same one.
        return load_singleton, (self.namespaces[id(namespace)][0], name, *reduced[:2])

    def by_name(self, name: Name, qualname: str | None = None) -> Any:
        """The reduced form of an object that is found by a name."""
        self.note_module(name.module)
        is_plain = name.path == qualname and not name.steps
        return NotImplemented if is_plain else (load_name, tuple(name))

    def module_of(self, namespace: dict[str, Any]) -> tuple[str, StandIn]:
        """The name of the module that has these global names, and what stands for them."""
        name = importable_module(namespace)
        own = namespace.get("__name__")
        own = own if type(own) is str else "__main__"
        if id(namespace) not in self.namespaces:
            if name is None:
                package = namespace.get("__package__")
                self.stand_ins(namespace, own, package if type(package) is str else None)
            else:
                self.note_module(name)
                module = sys.modules[name]
                self.namespaces[id(namespace)] = module, StandIn(vars, (module,))
        return name or own, self.namespaces[id(namespace)][1]

    def stand_ins(self, namespace: dict[str, Any], name: str, package: str | None) -> None:
        """Make what stands for a module that cannot be imported."""
        # The script is the same one in all calls; others are told apart by where they are in memory.
        key = SCRIPT if namespace is vars(sys.modules["__main__"]) else id(namespace)
        module = StandIn(load_module, (key, name, package))
        self.namespaces[id(namespace)] = module, StandIn(vars, (module,))


def _with_key(proxy: Any) -> Reduced:
    """The reduced form of a `multiprocessing.Manager`'s proxy, with the key that opens the manager's door.

    As for child processes: it goes only to workers, which run this program's code anyway.
    """
    make, (proxy_type, token, serializer, options) = proxy.__reduce__()
    return make, (proxy_type, token, serializer, {**options, "authkey": bytes(proxy._authkey)})


def _modules_with(kind: type) -> Iterator[types.ModuleType]:
    """The modules that may hold the only instances of a class; the script comes first."""
    for name in ["__main__", *(list(sys.modules) if kind is object else [kind.__module__])]:
        module = sys.modules.get(name)
        if isinstance(module, types.ModuleType) and (name == "__main__" or is_importable(module)):
            yield module
