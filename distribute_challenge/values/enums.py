"""Enums that travel by value: members are made without the enum's own `__new__` and `__init__`."""

from __future__ import annotations

import enum
from typing import Any

from distribute_challenge.values.making import Reduced

# What an enum's metaclass works out anew.
_MADE_ANEW = {
    *("_generate_next_value_", "_member_names_", "_member_map_", "_member_type_", "_value2member_map_"),
    *("_hashable_values_", "_unhashable_values_", "_unhashable_values_map_", "_unhashable_value2member_map_"),
    *("__new__", "_new_member_", "__new_member__", "_use_args_", "_value_repr_"),
    *("_flag_mask_", "_singles_mask_", "_all_bits_", "_inverted_", "_boundary_"),
}


def reduce_enum(cls: enum.EnumMeta, attributes: dict[str, Any]) -> Reduced:
    """What makes an enum, with which arguments, and the attributes that it is given then."""
    members: Any = cls.__members__
    made_anew = _MADE_ANEW.union(members)
    attributes = {name: value for name, value in attributes.items() if name not in made_anew}
    attributes["__members"] = {name: dict(vars(member)) for name, member in members.items()}
    attributes["__new_member"] = vars(cls).get("__new_member__")
    data_type = getattr(cls, "_member_type_", object)
    content = {name: (member._value_, _data_of(member, data_type)) for name, member in members.items()}
    boundary = getattr(cls, "_boundary_", None)
    arguments = (type(cls), cls.__name__, cls.__bases__, cls.__module__, cls.__qualname__, content, boundary)
    return _make_enum, arguments, attributes


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
    space["__new__"], space["__init__"] = _make_member, do_nothing
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


def do_nothing(made: Any, *_: Any, **__: Any) -> None:
    """In place of what has run already, and whose effect comes with the class or the member."""


def update_enum(cls: Any, attributes: dict[str, Any]) -> None:
    """Give the members of a copy what their originals hold, which is taken out of `attributes`."""
    new_member = attributes.pop("__new_member")
    for name, content in attributes.pop("__members").items():
        member = cls.__members__[name]
        vars(member).clear()
        vars(member).update(content)
    if new_member is not None:
        cls.__new_member__ = new_member
