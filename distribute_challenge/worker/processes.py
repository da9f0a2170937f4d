"""What functions start with `multiprocessing`: children that are not forked get the script's names, too.

Such a child, the rule from Python 3.14 on, looks for names of the script in its own `__main__`, where
multiprocessing would run the script again. Here it gets those that the running function has, when it starts.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_PATCHED = "multiprocessing.process"


class _Finder:
    """Changes `multiprocessing` when a function imports it first: most workers never need it."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Called for each module that is imported."""
        if name != _PATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_change(module: ModuleType) -> None:
                run(module)
                module.BaseProcess.__reduce__ = _reduce

            spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


class _Names:
    """The names of the script. Where this is unpickled, `__main__` has them."""

    def __reduce__(self) -> tuple[Any, ...]:
        import cloudpickle

        script = sys.modules["__main__"]
        names = {name: getattr(script, name, None) for name in dir(script) if name[:2] != "__"}
        try:
            data = cloudpickle.dumps(names)
        except Exception:  # Whatever refuses to be pickled is left out, as long as nobody asks for it.
            data = cloudpickle.dumps({name: value for name, value in names.items() if _can_travel(value)})
        return _take_names, (data,)


def carry_names() -> None:
    """Have children that are pickled, as all are that are not forked, take the script's names along."""
    sys.meta_path.insert(0, _Finder())


def _reduce(process: BaseProcess) -> tuple[Any, ...]:
    # In this order: what comes after the names may be found by them, such as the class.
    return _make, (_Names(), type(process)), vars(process)


def _make(names: None, kind: type[BaseProcess]) -> BaseProcess:
    del names
    return kind.__new__(kind)


def _take_names(data: bytes) -> None:
    vars(sys.modules["__main__"]).update(pickle.loads(data))


def _can_travel(value: Any) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True
