"""The user's own modules: which a call needs, and what is sent of them.

A module is the user's own if its file lies outside the interpreter's library folders. A worker need not have
it: its text is sent, with those of the modules that it imports, as the files are then.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from distribute_challenge.wire.payload import Module, is_this_package


class _Place(NamedTuple):
    """Where a module is: its file, or None, and if it is a package its folder."""

    file: str | None
    folder: str | None


def is_users(name: str) -> bool:
    """Whether the module called `name` is the user's own. (`__main__` is not sent: what it defines is.)"""
    return _may_be_sent(name) and _place(name) is not None


def _may_be_sent(name: str) -> bool:
    return bool(name) and name != "__main__" and not name.startswith(".") and not is_this_package(name)


def modules_for(names: Iterable[str]) -> tuple[Module, ...]:
    """These modules, the packages that they are in, and those of the user's own that they import."""
    found: dict[str, Module] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found or not _may_be_sent(name) or (place := _place(name)) is None:
            continue
        parent = name.rpartition(".")[0]
        if parent:
            todo.append(parent)
        if place.file is None:
            found[name] = Module(name, place.folder or "", place.folder, f"{name}:{place.folder}", "")
            continue
        status = Path(place.file).stat()
        text, digest, imported = _read(
            name, place.file, place.folder is not None, status.st_mtime_ns, status.st_size
        )
        found[name] = Module(name, place.file, place.folder, digest, text)
        todo += imported
    return tuple(found.values())


def _place(name: str) -> _Place | None:
    """Where the module is, if it is the user's own. Nothing is imported for that."""
    module = sys.modules.get(name)
    if module is None:
        return _place_of_unloaded(name)
    folders = list(getattr(module, "__path__", None) or ())
    return _users_place(getattr(module, "__file__", None), folders)


def _place_of_unloaded(name: str) -> _Place | None:
    parent, _, child = name.rpartition(".")
    if not parent:
        return None if _is_librarys(name) else _find(name)
    folder = place.folder if (place := _place(parent)) is not None else None
    if folder is None:
        return None
    package, file = Path(folder, child, "__init__.py"), Path(folder, f"{child}.py")
    if package.is_file():
        return _Place(str(package), str(package.parent))
    if file.is_file():
        return _Place(str(file), None)
    return _Place(None, str(package.parent)) if package.parent.is_dir() else None


@functools.lru_cache(maxsize=1024)
def _is_librarys(name: str) -> bool:
    """Whether a top-level module that is not loaded comes with Python, or is installed."""
    return name in sys.stdlib_module_names or (_spec(name) is not None and _find(name) is None)


def _find(name: str) -> _Place | None:
    spec = _spec(name)
    if spec is None:
        return None
    return _users_place(spec.origin if spec.has_location else None, spec.submodule_search_locations or ())


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # A finder of somebody's that cannot cope.
        return None


def _users_place(file: str | None, folders: Iterable[str]) -> _Place | None:
    folder = next(iter(folders), None)
    path = file or folder
    if path is None or (file is not None and not file.endswith(".py")) or not _is_outside(path):
        return None
    return _Place(file, folder)


@functools.lru_cache(maxsize=4096)
def _is_outside(path: str) -> bool:
    """Whether a path lies outside the library folders."""
    resolved = Path(path).resolve()
    return not any(resolved.is_relative_to(folder) for folder in _library_folders())


@functools.lru_cache(maxsize=1)
def _library_folders() -> tuple[Path, ...]:
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return (Path(__file__).resolve().parents[1], *(Path(folder).resolve() for folder in folders if folder))


@functools.lru_cache(maxsize=1024)
def imported_in(source: str, package: str) -> tuple[str, ...]:
    """The names of the modules that a text inside a package imports, and of what may be ones."""
    return tuple(dict.fromkeys(_imported(ast.parse(source), package)))


@functools.lru_cache(maxsize=1024)
def _read(
    name: str, file: str, is_package: bool, modified: int, size: int
) -> tuple[str, str, tuple[str, ...]]:
    """Text, digest, and the names that it imports, of a file as it was when it had that time and size."""
    del modified, size
    data = Path(file).read_bytes()
    text = importlib.util.decode_source(data)
    digest = hashlib.sha256(f"{name}\0{file}\0".encode() + data).hexdigest()
    try:
        tree = ast.parse(data)
    except SyntaxError:  # The worker's import will say it better.
        return text, digest, ()
    package = name if is_package else name.rpartition(".")[0]
    return text, digest, tuple(dict.fromkeys(_imported(tree, package)))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            yield base
            for alias in node.names:
                yield f"{base}.{alias.name}"
