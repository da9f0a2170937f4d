"""Classes that travel by value, and how each finds back to the class that it was.

A class of the user's own script is sent as a copy, made by cloudpickle. The copy carries a token. When it,
or an instance of it, comes back to where the class is from, the token is all that travels: the answer holds
instances of the original class, which is not touched. Tokens are unique across processes.
"""

from __future__ import annotations

import enum
import pickle
import threading
import uuid
import weakref
from collections.abc import Callable
from typing import Any

Reduced = tuple[Any, ...]

_lock = threading.Lock()  # guards the three below
_tokens: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
_classes: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
_own: set[str] = set()  # the tokens of classes that were made here, and are not copies


def with_token(cls: type, reduced: Reduced) -> Reduced:
    """What pickle is to write for a class, given what cloudpickle would: the same, and its token."""
    make, arguments, state, _, _, set_state = reduced
    if "__slots__" in vars(cls) and len(arguments) > 3 and type(arguments[3]) is dict:
        # cloudpickle would set them on the finished class, where they have no effect.
        slots = {**arguments[3], "__slots__": cls.__slots__}  # type: ignore[attr-defined]
        arguments = (*arguments[:3], slots, *arguments[4:])
    with _lock:
        token = _tokens.get(cls)
        if token is None:
            token = _tokens[cls] = uuid.uuid4().hex
            _classes[token] = cls
            _own.add(token)
    return _receive, (token, make, arguments), (token, set_state, state), None, None, _update


def by_token(cls: type) -> Reduced | None:
    """What pickle is to write for a class on its way back; None for one that came from nowhere else."""
    with _lock:
        token = _tokens.get(cls)
    return None if token is None else (_find, (token,))


def _receive(token: str, make: Callable[..., type], arguments: Reduced) -> type:
    with _lock:
        known = _classes.get(token)
    if known is not None:
        return known
    cls = make(*arguments)
    with _lock:
        _tokens[cls] = token
        _classes[token] = cls
    return cls


def _update(cls: type, state: Reduced) -> None:
    token, set_state, content = state
    if token in _own:
        return
    if type(content) is tuple and type(content[0]) is dict and not isinstance(cls, enum.EnumMeta):
        # What its original does not have (any more), nor a copy from before that is still alive.
        for name in [name for name in vars(cls) if not name.startswith("__") and name not in content[0]]:
            if name not in getattr(cls, "__slots__", ()) and name != "_abc_impl":
                delattr(cls, name)
    set_state(cls, content)


def _find(token: str) -> type:
    with _lock:
        cls = _classes.get(token)
    if cls is None:
        raise pickle.UnpicklingError("its class has gone from the program that it came from")
    return cls
