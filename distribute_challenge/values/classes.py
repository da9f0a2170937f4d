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

log = logging.getLogger(__name__)

Reduced = tuple[Any, ...]

_lock = threading.Lock()  # guards the four below
_tokens: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
_classes: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
# The names that were in each copy when it was made.
_skeletons: weakref.WeakKeyDictionary[type, frozenset[str]] = weakref.WeakKeyDictionary()
_own: weakref.WeakSet[type] = weakref.WeakSet()  # those that were made here, and are not copies


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


# A thread that does not exist in a forked child may have held it.
os.register_at_fork(after_in_child=_renew_lock)

_apart = threading.local()  # `copies`: those of the call that runs in its caller's process, by token

_IMMUTABLE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE, among the flags of a type
# What an enum's metaclass works out anew.
_MADE_BY_ENUM = {
    *("_generate_next_value_", "_member_names_", "_member_map_", "_member_type_", "_value2member_map_"),
    *("_hashable_values_", "_unhashable_values_", "_unhashable_values_map_", "_unhashable_value2member_map_"),
    *("__new__", "_new_member_", "__new_member__", "_use_args_", "_value_repr_"),
    *("_flag_mask_", "_singles_mask_", "_all_bits_", "_inverted_", "_boundary_"),
}


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
        make, arguments = _make_enum, _enum_arguments(cls)
        made_anew = _MADE_BY_ENUM.union(cls.__members__)
        attributes = {name: value for name, value in attributes.items() if name not in made_anew}
        members: Any = cls.__members__
        attributes["__members"] = {name: dict(vars(member)) for name, member in members.items()}
        attributes["__new_member"] = vars(cls).get("__new_member__")
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
            _classes[token] = cls
            _own.add(cls)
    now = attributes, type(cls), cls.__bases__
    return _receive, (token, make, arguments), now, None, None, _update


def by_token(cls: type) -> Reduced | None:
    """The reduced form of a class on its way back: its token. None if it was defined here."""
    with _lock:
        token = _tokens.get(cls)
    return None if token is None else (_find, (token,))


def _receive(token: str, make: Callable[..., type], arguments: Reduced) -> type:
    copies: dict[str, type] | None = getattr(_apart, "copies", None)
    with _lock:
        known = _classes.get(token) if copies is None else copies.get(token)
    if known is not None:
        return known
    cls = make(*arguments)
    with _lock:
        _tokens[cls] = token
        _skeletons[cls] = frozenset(vars(cls))
        if copies is None:
            _classes[token] = cls
        else:
            copies[token] = cls
    return cls


def copies() -> dict[str, type]:
    """The copies that the calls of this thread have, by their tokens."""
    own: dict[str, type] | None = getattr(_apart, "copies", None)
    with _lock:
        return {token: cls for token, cls in (_classes if own is None else own).items() if cls not in _own}


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
        except TypeError as error:
            log.debug("%s is made without telling its bases: %s", name, error)
    resolved = types.resolve_bases(bases)
    if resolved is not bases:
        space = {**space, "__orig_bases__": bases}
    hidden = {}
    for base in {cls for part in resolved for cls in part.__mro__}:
        if type(vars(base).get("__init_subclass__")) is classmethod and base.__module__ != "typing":
            hidden[base] = vars(base)["__init_subclass__"]
            base.__init_subclass__ = classmethod(_do_nothing)
    maker = next(cls for cls in kind.__mro__ if cls.__module__ in ("builtins", "abc"))
    try:
        made: type = maker.__new__(kind, name, resolved, space)
    finally:
        for base, method in hidden.items():
            base.__init_subclass__ = method
    return made


def _update(cls: type, state: Reduced) -> None:
    attributes, kind, bases = state
    if cls in _own:
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
        _update_enum(cls, attributes)
    registered = attributes.pop("_abc_impl", ())
    for name, value in attributes.items():
        set_attribute(cls, name, value)
    if "__firstlineno__" in attributes:  # From Python 3.13 on, setting `__module__` removes it.
        set_attribute(cls, "__firstlineno__", attributes["__firstlineno__"])
    for other in registered:
        cls.register(other)  # type: ignore[attr-defined]


def set_attribute(holder: Any, name: str, value: Any) -> None:
    """Set an attribute. Of a class, its metaclass has been told where it was set first."""
    try:
        type.__setattr__(holder, name, value)
    except TypeError:  # It is no class; or a metaclass in C has a way of its own, which is the only one.
        setattr(holder, name, value)


def delete_attribute(holder: Any, name: str) -> None:
    """Delete an attribute, in the same way."""
    try:
        type.__delattr__(holder, name)
    except TypeError:
        delattr(holder, name)


def restore(contents: dict[type, dict[str, Any]]) -> None:
    """Give copies the attributes that they had, whatever calls have done to them since."""
    for cls, content in contents.items():
        own = vars(cls)
        for name in own.keys() - content.keys():
            if not name.startswith("__"):  # Python keeps what it has worked out there.
                delete_attribute(cls, name)
        for name, value in content.items():
            if own.get(name) is not value:
                set_attribute(cls, name, value)


def _find(token: str) -> type:
    with _lock:
        cls = _classes.get(token)
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


def _enum_arguments(cls: enum.EnumMeta) -> Reduced:
    """The arguments that make an enum again without its own `__new__` and `__init__`."""
    members: Any = cls.__members__
    data_type = getattr(cls, "_member_type_", object)
    content = {name: (member._value_, _data_of(member, data_type)) for name, member in members.items()}
    boundary = getattr(cls, "_boundary_", None)
    return type(cls), cls.__name__, cls.__bases__, cls.__module__, cls.__qualname__, content, boundary


def _data_of(member: Any, data_type: type) -> tuple[Any, ...]:
    """The arguments for the part of a member that is an int, a str or the like."""
    make: Any = data_type.__new__
    if make is object.__new__:
        return ()
    for kind in (int, str, bytes, float, complex, tuple, frozenset):
        if issubclass(data_type, kind):
            return (str.__str__(member) if kind is str else kind(member),)
    raise TypeError(
        f"the enum {type(member).__qualname__}, whose members are {data_type.__qualname__} objects, travels "
        "only from a module of its own"
    )


def _make_enum(
    meta: Any,
    name: str,
    bases: Reduced,
    module: str,
    qualname: str,
    members: dict[str, Reduced],
    boundary: Any,
) -> type:
    """An enum whose members have their values; what else they hold is set later."""
    space = meta.__prepare__(name, bases)
    space["__module__"], space["__qualname__"] = module, qualname
    space["__new__"], space["__init__"] = _make_member, _do_nothing
    for member, content in members.items():
        space[member] = (content,)
    options = {} if boundary is None else {"boundary": boundary}
    made: Any = meta.__new__(meta, name, bases, space, **options)
    del made.__init__
    return made  # type: ignore[no-any-return]


def _make_member(cls: Any, content: Reduced) -> Any:
    if len(content) == 1:  # Of a tuple, the metaclass puts the arguments into another one.
        (content,) = content
    value, arguments = content
    member = cls._member_type_.__new__(cls, *arguments)
    member._value_ = value
    return member


def _do_nothing(made: Any, *_: Any, **__: Any) -> None:
    """In place of what has run already, and whose effect comes with the class or the member."""


def _update_enum(cls: Any, attributes: dict[str, Any]) -> None:
    new_member = attributes.pop("__new_member")
    for name, content in attributes.pop("__members").items():
        member = cls.__members__[name]
        vars(member).clear()
        vars(member).update(content)
    if new_member is not None:
        cls.__new_member__ = new_member
