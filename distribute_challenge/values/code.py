"""The names that a function's code mentions."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator

# The second half is for the body of a class inside a function.
_GLOBAL = {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}

_MAX_LEVEL = 1000  # dots before the name of what is imported


class Names:
    """The names in a function's code, and in all code inside it."""

    def __init__(self, code: types.CodeType) -> None:
        self.globals: set[str] = set()  # looked up or bound in its module
        self.all: set[str] = set()
        self.imported: set[tuple[int, str]] = set()  # modules, and what may be one: level and name
        for part in codes_in(code):
            self.all.update(part.co_names, part.co_freevars)
            # Constants are shown beside instructions: of a large number that is refused.
            small = tuple(it if type(it) is int and abs(it) < _MAX_LEVEL else None for it in part.co_consts)
            steps = dis.get_instructions(part.replace(co_consts=small))
            self._add([step for step in steps if step.opname != "EXTENDED_ARG"])

    def _add(self, instructions: list[dis.Instruction]) -> None:
        module = (0, "")
        for number, instruction in enumerate(instructions):
            name = instruction.argval
            if instruction.opname in _GLOBAL and isinstance(name, str):
                self.globals.add(name)
            elif instruction.opname == "IMPORT_NAME":
                level = instructions[number - 2].argval  # Before it come the level and the names.
                module = (level if type(level) is int else 0, name)
                self.imported.add(module)
            elif instruction.opname == "IMPORT_FROM":
                self.imported.add((module[0], f"{module[1]}.{name}".lstrip(".")))

    def modules(self, package: str) -> Iterator[str]:
        """The full names of what is imported, from inside a package."""
        parents = package.split(".")
        for level, name in self.imported:
            if level:
                yield ".".join([*parents[: len(parents) - level + 1], *filter(None, [name])])
            else:
                yield name


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object, and all code inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_in(constant)


names_of = functools.lru_cache(maxsize=1024)(Names)


def explained(error: AttributeError) -> AttributeError:
    """An error that may come from asking for the pool where a decorated function's name is the plain one."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is not None and getattr(error, "name", None) in ("run", "submit"):
        name = frame.tb_frame.f_code.co_name
        if name in names_of(frame.tb_frame.f_code).all and len(error.args) == 1:
            advice = f"write it without .{error.name}(), or run it on the pool with {name}.map([...])"
            error.args = (f"{error.args[0]} (inside {name}, {name}(...) is a plain call: {advice})",)
    return error
