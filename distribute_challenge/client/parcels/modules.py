"""The user's own modules: which a call needs, and what is sent of them.

A module is the user's own if it lies outside the interpreter's library folders. A worker need not have it:
its text is sent, with the texts of the modules that it imports. A text is read when the module is first
needed, and again when the program reloads the module.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
import pickle
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from distribute_challenge.calls.payload import COMPILED, Module, is_this_package
from distribute_challenge.values import PROTOCOL
from distribute_challenge.values.definition import tree_of


class _Place(NamedTuple):
    """Where a module is: its file, or None; if it is a package its folder; and how its text is read."""

    file: str | None
    folder: str | None
    spec: Any  # importlib.machinery.ModuleSpec | None


class _Source(NamedTuple):
    """A module as it is sent, and the names of the modules that it imports."""

    module: Module
    imported: tuple[str, ...]
    generation: int = 0  # how often it was read anew


class NeededModules(NamedTuple):
    """The user's own modules that a call needs, and where its program finds others."""

    folders: tuple[str, ...]
    modules: tuple[Module, ...]
    digests: frozenset[str]
    size: int  # of the texts, about, in bytes
    brief: bytes  # without the texts

    def pack(self, sent: set[str]) -> bytes:
        """As bytes, for a connection on which texts with the digests in `sent` have gone before."""
        if self.digests <= sent:
            return self.brief
        news = [module._replace(text=None) if module.digest in sent else module for module in self.modules]
        sent |= self.digests
        return _pickled(self.folders, news)


class _Known(NamedTuple):
    """Modules that were found before, and whether they would be found again."""

    modules: NeededModules
    path: list[str]
    folder: str  # the current one, if it is on the path
    loaded: tuple[tuple[str, Any, Any], ...]  # name, module, and its spec: another one if it is reloaded
    others: tuple[tuple[str, Any], ...]  # of modules that are not loaded here

    def holds(self) -> bool:
        if self.path != sys.path or (self.folder and self.folder != _current_folder()):
            return False
        for name, module, spec in self.loaded:
            if sys.modules.get(name) is not module or getattr(module, "__spec__", None) is not spec:
                return False
        return not self.others or all(
            name not in sys.modules and _version(name) == version for name, version in self.others
        )


_sources: dict[str, tuple[Any, _Source]] = {}  # by name, with what tells that it is still that one
_known: dict[frozenset[str], _Known] = {}
_MAX_KNOWN = 1000


def is_users(name: str) -> bool:
    """Whether the module called `name` is the user's own. (`__main__` is not sent: what it defines is.)"""
    return _may_be_sent(name) and _place(name) is not None


def modules_for(names: frozenset[str]) -> NeededModules:
    """These modules, the packages that they are in, and those of the user's own that they import.

    Raises OSError, SyntaxError or UnicodeError if one cannot be read.
    """
    known = _known.get(names)
    if known is None or not known.holds():
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        known = _known[names] = _find_all(names)
    return known.modules


def _find_all(names: frozenset[str]) -> _Known:
    path, folder = list(sys.path), _current_folder()
    found: dict[str, Module] = {}
    todo = sorted(names)
    while todo:
        name = todo.pop()
        if name in found or not _may_be_sent(name) or (place := _place(name)) is None:
            continue
        source = _source(name, place)
        found[name] = source.module
        todo += source.imported
        if parent := name.rpartition(".")[0]:
            todo.append(parent)
    folders = _outside(tuple(path), folder)
    every = tuple(found.values())
    brief = _pickled(folders, [module._replace(text=None) for module in every])
    size = sum(4 * len(module.text or "") for module in every)
    modules = NeededModules(folders, every, frozenset(module.digest for module in every), size, brief)
    loaded = {name: sys.modules[name] for name in found if name in sys.modules}
    return _Known(
        modules,
        path,
        folder,
        tuple((name, module, getattr(module, "__spec__", None)) for name, module in loaded.items()),
        tuple((name, _version(name)) for name in found if name not in loaded),
    )


def _pickled(folders: tuple[str, ...], modules: Iterable[Module]) -> bytes:
    return pickle.dumps((folders, [tuple(module) for module in modules]), PROTOCOL)


def _current_folder() -> str:
    """The current folder, if modules are found there."""
    return str(Path.cwd()) if "" in sys.path else ""


@functools.lru_cache(maxsize=16)
def _outside(path: tuple[str, ...], current: str) -> tuple[str, ...]:
    entries = (str(Path(entry or current).absolute()) for entry in path)
    return tuple(entry for entry in dict.fromkeys(entries) if Path(entry).exists() and _is_outside(entry))


def _may_be_sent(name: str) -> bool:
    return bool(name) and name != "__main__" and not name.startswith(".") and not is_this_package(name)


def _place(name: str) -> _Place | None:
    """Where the module is, if it is the user's own. Nothing is imported for that."""
    module = sys.modules.get(name)
    if module is None:
        return _place_of_unloaded(name)
    folders = list(getattr(module, "__path__", None) or ())
    return _users_place(getattr(module, "__file__", None), folders, getattr(module, "__spec__", None))


def _place_of_unloaded(name: str) -> _Place | None:
    parent, _, child = name.rpartition(".")
    if not parent:
        return None if _is_librarys(name) else _find(_spec(name))
    place = _place(parent)
    folder = place and place.folder
    if folder is None:
        return None
    return _find(importlib.machinery.PathFinder.find_spec(name, [folder])) if child.isidentifier() else None


@functools.lru_cache(maxsize=1024)
def _is_librarys(name: str) -> bool:
    """Whether a top-level module that is not loaded comes with Python, or is installed."""
    spec = None if name in sys.stdlib_module_names else _spec(name)
    return name in sys.stdlib_module_names or (spec is not None and _find(spec) is None)


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # A finder of somebody's that cannot cope.
        return None


def _find(spec: importlib.machinery.ModuleSpec | None) -> _Place | None:
    if spec is None:
        return None
    return _users_place(
        spec.origin if spec.has_location else None, spec.submodule_search_locations or (), spec
    )


def _users_place(file: str | None, folders: Iterable[str], spec: Any) -> _Place | None:
    folder = next(iter(folders), None)
    path = file or folder
    return None if path is None or not _is_outside(path) else _Place(file, folder, spec)


@functools.lru_cache(maxsize=4096)
def _is_outside(path: str) -> bool:
    """Whether a path lies outside the library folders."""
    resolved = Path(path).resolve()
    return not any(resolved.is_relative_to(folder) for folder in _LIBRARY_FOLDERS)


def _library_folders() -> tuple[Path, ...]:
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return (Path(__file__).resolve().parents[2], *(Path(folder).resolve() for folder in folders if folder))


_LIBRARY_FOLDERS = _library_folders()  # Now: it imports a module, and who does that shall not be forked.


def _version(name: str) -> Any:
    """A value that changes when another text is to be sent for a module."""
    place = _place(name)
    if place is None or name in sys.modules:
        return place and place.spec  # Another one if the program imports it anew.
    status = Path(place.file).stat() if place.file and Path(place.file).exists() else None
    return place.file, place.folder, status and (status.st_mtime_ns, status.st_size)


def _source(name: str, place: _Place) -> _Source:
    """A module as it is sent, cached. Raises OSError, SyntaxError or UnicodeError if it cannot be read."""
    version = _version(name)
    known = _sources.get(name)
    if known is not None and (known[0] is version or (type(version) is tuple and known[0] == version)):
        return known[1]
    source = _read(name, place, 0 if known is None else known[1].generation + 1)
    _sources[name] = version, source
    return source


def _read(name: str, place: _Place, generation: int) -> _Source:
    file, folder, spec = place
    if file is None:  # A package that is nothing but a folder.
        return _Source(Module(name, folder or "", folder, f"{name}:{folder}", ""), ())
    if file.endswith(COMPILED):  # It is there for workers of this machine.
        return _Source(Module(name, file, folder, f"{name}:{file}", ""), ())
    text = _text_of(name, file, spec)
    # A module that the program has reloaded is another one, also if its text is the same.
    digest = f"{hashlib.sha256(f'{name}/{file}/{text}'.encode()).hexdigest()}-{generation}"
    try:
        tree = tree_of(text)
    except SyntaxError:  # The worker's import will say it better.
        tree = ast.Module([], [])
    package = name if folder is not None else name.rpartition(".")[0]
    imported = tuple(dict.fromkeys(_imported(tree, package)))
    return _Source(Module(name, file, folder, digest, text), imported, generation)


def _text_of(name: str, file: str, spec: Any) -> str:
    """The text of a module, also from a zip file."""
    try:
        data = Path(file).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        text: str | None = getattr(getattr(spec, "loader", None), "get_source", lambda _: None)(name)
        if text is None:
            raise
        return text
    return importlib.util.decode_source(data)


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
