"""The code of a decorated function, and whether a frame runs it."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from distribute_challenge.values.code import codes_in
from distribute_challenge.values.functions import content_of, functions_in

if TYPE_CHECKING:  # It knows this file.
    from distribute_challenge.client.compute import ComputeFunction


class Body:
    """The code of a decorated function: in there its name is the plain function."""

    def __init__(self, function: Any) -> None:
        self._functions = tuple(functions_in(function))
        self._codes: dict[tuple[str, int, str], list[tuple[types.CodeType, types.FunctionType]]] = {}
        for inside in self._functions:
            for code in codes_in(inside.__code__):
                place = code.co_filename, code.co_firstlineno, code.co_name
                self._codes.setdefault(place, []).append((code, inside))

    def has(self, frame: types.FrameType, function: ComputeFunction[Any, Any]) -> bool:
        """Whether a frame is that of the function itself, or of a copy of it."""
        code = frame.f_code
        place = code.co_filename, code.co_firstlineno, code.co_name
        for own, inside in self._codes.get(place, ()):
            if own is code or own == code:
                return _has_same_closure(frame, inside)
        # A decorator that does not say what it wraps has it in its closure.
        for cell in self._functions[0].__closure__ or () if len(self._functions) == 1 else ():
            for inside in content_of(cell):
                if isinstance(inside, types.FunctionType) and code in codes_in(inside.__code__):
                    return inside.__globals__.get(inside.__qualname__) is function
        return False


def _has_same_closure(frame: types.FrameType, function: types.FunctionType) -> bool:
    """Whether a frame is of this function, and not of another one with the same code."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    shared = ((name, cell) for name, cell in cells if name in frame.f_code.co_freevars)
    return all(frame.f_locals.get(name) is value for name, cell in shared for value in content_of(cell))
