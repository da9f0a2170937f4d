"""Names: functions, classes and modules that a worker can import travel by their name.

Everything else is the script's, and travels by value.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import pickle
import sys
import types
from typing import Any, NamedTuple

_SCRIPTS = ("__main__", "__mp_main__")  # The second is what multiprocessing calls the script.
_MAX_STEPS = 20


class Name(NamedTuple):
    """Where something is found: a path in a module, and how many times `__wrapped__` from there."""

    module: str
    path: str
    steps: int = 0


def is_importable(module: types.ModuleType) -> bool:
    """Whether a loaded module can be imported where it is needed."""
    name: Any = getattr(module, "__name__", None)
    if name in _SCRIPTS or sys.modules.get(name) is not module or name.partition(".")[0] in _copied():
        return False
    if getattr(module, "__spec__", None) is not None or getattr(module, "__file__", None) is not None:
        return True
    parent = sys.modules.get(name.rpartition(".")[0])  # Some packages make theirs.
    return parent is not None and is_importable(parent)


def importable_module(namespace: dict[str, Any]) -> str | None:
    """The name of the importable module whose global names these are."""
    name = namespace.get("__name__")
    module = sys.modules.get(name) if type(name) is str else None
    if module is None or getattr(module, "__dict__", None) is not namespace or not is_importable(module):
        return None
    return name


def name_of(value: Any) -> Name | None:
    """By which name a function, class or the like is found; None if it has to travel by value.

    What is inside of a decorated one is found as well: by its `__wrapped__`.
    """
    qualname = _text_in(value, "__qualname__")
    module_name = _text_in(value, "__module__") if qualname else _module_of_named(value)
    if not module_name and type(value) is types.BuiltinMethodType:  # As `random.random`, of a hidden object.
        module_name = type(value.__self__).__module__
    module = sys.modules.get(module_name) if module_name else None
    if module is None or not is_importable(module):
        return None
    for path in (qualname, _text_in(value, "__name__")):
        steps = steps_to(value, module, path) if path else None
        if steps is not None:
            return Name(module.__name__, path, steps)
    return None


def _module_of_named(value: Any) -> str:
    """The module of what its type pickles by its name alone, as SciPy's functions; else none."""
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        name = _text_in(value, "__name__") if reduce is not None else ""
        if not name or reduce is None or reduce(value) != name:
            return ""
        return str(pickle.whichmodule(value, name))  # type: ignore[attr-defined]
    except Exception:  # It is in no module, or its type pickles it by code that raises whatever it likes.
        return ""


def _text_in(value: Any, attribute: str) -> str:
    """An attribute that is a text; else, or if looking at it raises, none."""
    try:
        text = getattr(value, attribute, None)
    except Exception:
        return ""
    return text if type(text) is str else ""


def steps_to(value: Any, module: types.ModuleType, path: str) -> int | None:
    """How many times `__wrapped__` a value is from what is at a path in a module; None if it is not there."""
    try:
        found: Any = functools.reduce(getattr, path.split("."), module)
        for steps in range(_MAX_STEPS):
            if type(found) is types.FunctionType and found.__globals__.get("__name__") in _SCRIPTS:
                return None  # The script has put it there: elsewhere the module has something else.
            if found is value:
                return steps
            found = found.__wrapped__
    except Exception:  # Nothing is there, or something whose attributes raise whatever they like.
        return None
    return None


def load_name(module: str, path: str, steps: int = 0) -> Any:
    """The object with that name. Raises ImportError or AttributeError."""
    found: Any = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    for _ in range(steps):
        found = found.__wrapped__
    return found


def _copied() -> set[str]:
    """The modules of which the program has said that they are to be copied."""
    cloudpickle = sys.modules.get("cloudpickle")  # A process that has not loaded it copies none.
    names = () if cloudpickle is None else cloudpickle.list_registry_pickle_by_value()
    return {name.partition(".")[0] for name in names}
