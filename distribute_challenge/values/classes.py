"""Classes that travel by value, and how each finds back to the class that it was.

A class of the user's own script is sent as a copy, made by cloudpickle, with a token, which is all that
travels back. Tokens are unique across processes.
"""

from __future__ import annotations

import abc
import contextlib
import enum
import logging
import os
import pickle
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from distribute_challenge.values.enums import do_nothing, reduce_enum, update_enum
from distribute_challenge.values.making import Reduced, StandIn

log = logging.getLogger(__name__)

Copies = weakref.WeakValueDictionary[str, type]  # by token

_lock = threading.Lock()  # guards all that follows
_tokens: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
_originals: Copies = weakref.WeakValueDictionary()  # those that were made here
_copies: Copies = weakref.WeakValueDictionary()  # those of the program whose calls run here now
# The names that were in each copy when it was made.
_skeletons: weakref.WeakKeyDictionary[type, frozenset[str]] = weakref.WeakKeyDictionary()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


# A thread that does not exist in a forked child may have held it.
os.register_at_fork(after_in_child=_renew_lock)

_apart = threading.local()  # `copies`: those of the call that runs in its caller's process, by token


class Script(types.ModuleType):
    """The script's module where its functions run: it has what they mention, and the classes of all else."""

    def __getattr__(self, name: str) -> Any:
        """Asked for what is not in it, by pickle, say: a class of which an argument is."""
        found = _classes_of(self.__name__).get(name)
        if found is None:
            raise AttributeError(f"no function or value of this call brings the script's {name!r} along")
        return found

    def __dir__(self) -> list[str]:
        """All names that can be asked for."""
        return [*super().__dir__(), *_classes_of(self.__name__)]


def _classes_of(module: str) -> dict[str, type]:
    return {cls.__qualname__: cls for cls in copies().values() if cls.__module__ == module}


_EARLY = ("__dataclass_fields__", "__setstate__", "__hash__", "__eq__")
_IMMUTABLE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE, among the flags of a type


def with_token(cls: type, reduced: Reduced) -> Reduced:
    """The reduced form of a class: that of cloudpickle, and its token."""
    if cls.__flags__ & _IMMUTABLE:
        raise TypeError(
            f"the type {cls.__qualname__}, which C code has made, has no name by which it is found"
        )
    make, arguments, (attributes, _), *_ = reduced
    names = {"__name__": cls.__name__, "__qualname__": cls.__qualname__}
    attributes = {**_with_annotations(cls, attributes), **names}
    if isinstance(cls, enum.EnumMeta):
        make, arguments, attributes = reduce_enum(cls, attributes)
    elif type(arguments[3]) is dict:
        kind, name, bases, space, _, extra = arguments
        space = dict(space)
        if "__slots__" in vars(cls):  # cloudpickle would set them on the finished class, to no effect.
            space["__slots__"] = cls.__slots__  # type: ignore[attr-defined]
        # Of NamedTuple, it would make another one; and what was written may have been replaced since.
        if bases != cls.__bases__ and (issubclass(cls, tuple) or types.resolve_bases(bases) != cls.__bases__):
            space["__orig_bases__"], bases = bases, cls.__bases__
        # Without cloudpickle's own token, by which it would find a class that is there already.
        make, arguments = _make_class, (make, kind, name, bases, space, None, extra)
    with _lock:
        token = _tokens.get(cls)
        if token is None:
            token = _tokens[cls] = uuid.uuid4().hex
            _originals[token] = cls
    early = _EARLY if {"__getnewargs__", "__getnewargs_ex__"}.isdisjoint(attributes) else (*_EARLY, "__new__")
    first = {} if isinstance(cls, enum.EnumMeta) else {it: attributes[it] for it in early if it in attributes}
    now = StandIn(_begin, (cls, first)), attributes, type(cls), cls.__bases__
    return _receive, (token, make, arguments), now, None, None, _update


def by_token(cls: type) -> Reduced | None:
    """The reduced form of a class on its way back: its token. None if it was defined here."""
    with _lock:
        token = _tokens.get(cls)
    return None if token is None or cls not in _skeletons else (_find, (token,))


def use(those: Copies) -> None:
    """Have the calls from now on find these copies, and no others: each program has its own."""
    global _copies
    _copies = those


def copies() -> dict[str, type]:
    """The copies that the calls of this thread have, by their tokens."""
    with _lock:
        return dict(_here().items())  # As `dict` copies it, one may go meanwhile.


def _here() -> Any:
    own = getattr(_apart, "copies", None)
    return _copies if own is None else own


def _receive(token: str, make: Callable[..., type], arguments: Reduced) -> type:
    here = _here()
    with _lock:
        known: type | None = here.get(token)
        if known is None and here is _copies:
            known = _originals.get(token)
    if known is not None:
        return known
    cls = make(*arguments)
    with _lock:
        _tokens[cls] = token
        _skeletons[cls] = frozenset(vars(cls))
        here[token] = cls
    return cls


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """While a call runs in the process of its caller: its classes are copies, as they would be elsewhere."""
    before = getattr(_apart, "copies", None)
    _apart.copies = {}
    try:
        yield
    finally:
        _apart.copies = before


def _make_class(
    make: Callable[..., type], kind: Any, name: str, bases: Reduced, space: Any, *rest: Any
) -> type:
    """A class without its content.

    If its metaclass or a base is a copy, that one's `__new__` or `__init_subclass__` does not run: it has run
    where the class comes from, with keywords that are not known here. The same holds if one wants keywords.
    """
    if not any(cls in _tokens for cls in (kind, *bases) if isinstance(cls, type)):
        try:
            return make(kind, name, bases, space, *rest)
        except Exception as error:  # They may look for what the class does not have yet.
            log.debug("%s is made without telling its bases: %s", name, error)
    resolved = types.resolve_bases(bases)
    if resolved is not bases:
        space = {**space, "__orig_bases__": bases}
    hidden = {}
    for base in {cls for part in resolved for cls in part.__mro__}:
        if type(vars(base).get("__init_subclass__")) is classmethod and base.__module__ != "typing":
            hidden[base] = vars(base)["__init_subclass__"]
            base.__init_subclass__ = classmethod(do_nothing)
    maker = next(cls for cls in kind.__mro__ if cls.__module__ in ("builtins", "abc"))
    try:
        made: type = maker.__new__(kind, name, resolved, space)
    finally:
        for base, method in hidden.items():
            base.__init_subclass__ = method
    return made


def _begin(cls: type, attributes: dict[str, Any]) -> None:
    """Give a class what its instances need to be made, and to be found in dicts and sets.

    There may be some among the global names of its methods, which are loaded before they are set.
    """
    if cls in _skeletons:
        for name, value in attributes.items():
            set_attribute(cls, name, value)


def _update(cls: Any, state: Reduced) -> None:
    _, attributes, kind, bases = state
    if cls not in _skeletons:  # It is no copy.
        return
    # A copy that is here since an earlier call may have those that its original had then.
    if type(cls) is not kind:
        cls.__class__ = kind
    if cls.__bases__ != bases:
        cls.__bases__ = bases
    # What its original does not have (any more), nor a copy that an earlier call has changed.
    for name in set(vars(cls)).difference(attributes, _skeletons[cls]):
        delete_attribute(cls, name)
    if isinstance(cls, abc.ABCMeta):
        cls._abc_registry_clear()  # type: ignore[attr-defined]
        cls._abc_caches_clear()  # type: ignore[attr-defined]
    if isinstance(cls, enum.EnumMeta):
        update_enum(cls, attributes)
    registered = attributes.pop("_abc_impl", ())
    for name, value in attributes.items():
        set_attribute(cls, name, value)
    if "__firstlineno__" in attributes:  # From Python 3.13 on, setting `__module__` removes it.
        set_attribute(cls, "__firstlineno__", attributes["__firstlineno__"])
    for other in registered:
        cls.register(other)


def set_attribute(cls: type, name: str, value: Any) -> None:
    """Set an attribute of a class past its metaclass, whose own way has run where it was set first."""
    try:
        type.__setattr__(cls, name, value)
    except TypeError:  # A metaclass in C has a way that cannot be passed.
        setattr(cls, name, value)


def delete_attribute(cls: type, name: str) -> None:
    """Delete an attribute of a class, in the same way."""
    try:
        type.__delattr__(cls, name)
    except TypeError:
        delattr(cls, name)


def restore(contents: dict[type, dict[str, Any]]) -> None:
    """Give copies the attributes that they had, whatever functions have done to them since."""
    for cls, content in contents.items():
        own = vars(cls)
        for name in own.keys() - content.keys():
            delete_attribute(cls, name)
        for name, value in content.items():
            if own.get(name) is not value:
                set_attribute(cls, name, value)


def _find(token: str) -> type:
    with _lock:
        cls = _originals.get(token)
        cls = _copies.get(token) if cls is None else cls  # A class may be one that is false.
    if cls is None:
        raise pickle.UnpicklingError("its class has gone from the program that it came from")
    return cls


def _with_annotations(cls: type, attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a class with its annotations, which Python 3.14 and later work out when asked."""
    if "__annotate_func__" not in vars(cls):
        return attributes
    hidden = ("__annotate_func__", "__annotations_cache__")
    attributes = {name: value for name, value in attributes.items() if name not in hidden}
    try:
        attributes["__annotations__"] = cls.__annotations__
    except Exception:  # They name something that is not there (yet).
        import annotationlib  # It came with them.

        kind = annotationlib.Format.STRING
        attributes["__annotations__"] = annotationlib.get_annotations(cls, format=kind)
    return attributes
