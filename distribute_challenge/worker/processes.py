"""What functions start with `multiprocessing`: children that are not forked get the script's names, too.

Such a child, the rule from Python 3.14 on, looks for names of the script in its own `__main__`, where
multiprocessing would run the script again. Here it gets those that the running function has, when it starts.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from multiprocessing.process import BaseProcess
from typing import Any

import cloudpickle


class _Names:
    """The names of the script. Where this is unpickled, `__main__` has them."""

    def __reduce__(self) -> tuple[Any, ...]:
        names = {name: value for name, value in vars(sys.modules["__main__"]).items() if name[:2] != "__"}
        try:
            data = cloudpickle.dumps(names)
        except Exception:  # Whatever refuses to be pickled is left out, as long as nobody asks for it.
            data = cloudpickle.dumps({name: value for name, value in names.items() if _can_travel(value)})
        return _take_names, (data,)


def carry_names() -> None:
    """Have children that are pickled, as all are that are not forked, take the script's names along."""
    BaseProcess.__reduce__ = _reduce  # type: ignore[method-assign, assignment]


def _reduce(process: BaseProcess) -> tuple[Any, ...]:
    # In this order: what comes after the names may be found by them, such as the class.
    return _make, (_Names(), type(process)), vars(process)


def _make(names: None, kind: type[BaseProcess]) -> BaseProcess:
    del names
    process: BaseProcess = copyreg.__newobj__(kind)  # type: ignore[attr-defined]
    return process


def _take_names(data: bytes) -> None:
    vars(sys.modules["__main__"]).update(pickle.loads(data))


def _can_travel(value: Any) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True
