"""The modules of programs, on a worker: each program's own, imported once, apart from those of others."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import pickle
import sys
import threading
import types
import weakref
import zipimport
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from distribute_challenge.calls.payload import COMPILED, NO_PROGRAM, Module, is_this_package
from distribute_challenge.calls.program import current
from distribute_challenge.values import classes
from distribute_challenge.worker.settings import Settings

MAX_ENDED = 4  # programs without a connection, whose modules are still there if they come again


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from its text. Other files are those on this machine."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_data(self, path: str) -> bytes:
        """The content of a file."""
        return self._text.encode() if path == self.path else super().get_data(path)

    def get_source(self, fullname: str) -> str:
        """The text."""
        del fullname
        return self._text

    def source_to_code(self, data: Any, *where: Any, **how: Any) -> types.CodeType:  # type: ignore[override]
        """The code of the text, which is decoded already, whatever it says of its encoding."""
        del data
        return super().source_to_code(self._text, *where, **how)

    def path_stats(self, path: str) -> Any:
        """There is no bytecode to be found, or written, for a text."""
        raise OSError(path)


class _Program:
    """The modules and settings of one program, or of one executor that has an initializer."""

    def __init__(self) -> None:
        self.wanted: dict[str, Module] = {}  # all that calls of it have used so far, with their texts
        self._texts: dict[
            tuple[str, str], Module
        ] = {}  # all that have come: calls may still be in line for each
        self.folders: tuple[str, ...] = ()
        self.aside: dict[str, types.ModuleType] = {}  # its modules, while another program's are in use
        self.copies: classes.Copies = weakref.WeakValueDictionary()  # of classes of its script
        self.settings: Settings | None = None  # as it left them; None: it finds those of a new worker
        self.connections = 0

    def complete(self, modules: Sequence[Module]) -> list[Module]:
        """Modules with their texts, which come once, whatever becomes of their call.

        Raises ImportError or RuntimeError.
        """
        self._texts.update({(it.name, it.digest): it for it in modules if it.text is not None})
        for module in modules:
            if is_this_package(module.name):
                raise ImportError("the worker's own modules cannot be replaced")
            if (module.name, module.digest) not in self._texts:
                raise RuntimeError(f"the text of the module {module.name} has not come to this worker")
        return [self._texts[module.name, module.digest] for module in modules]

    def owns(self, name: str) -> bool:
        """Whether a module that is loaded belongs to it: by the package on top."""
        top = name.partition(".")[0]
        if top in self.wanted:
            return True
        spec = getattr(sys.modules.get(top), "__spec__", None)
        if spec is None or is_this_package(top) or not (spec.has_location or spec.submodule_search_locations):
            return False
        file = next(iter(spec.submodule_search_locations or ()), spec.origin)
        return str(Path(str(file)).parent) in self.folders


class ProgramModules(importlib.abc.MetaPathFinder):
    """Finds the modules of the program whose call is under way.

    `on_drop` is called with each program that is forgotten.
    """

    def __init__(self, on_drop: Callable[[bytes], object]) -> None:
        self._on_drop = on_drop
        self._packed: bytes | None = b""  # what came with the last call; None if that changed only part
        self._program = NO_PROGRAM
        self._hidden: dict[str, types.ModuleType] = {}  # the worker's, by names that the program uses itself
        self._libraries = set(sys.modules)  # what belongs to no program
        self._settings = Settings(is_first=True)
        self._lock = threading.Lock()  # guards the two below
        self._programs: dict[bytes, _Program] = {NO_PROGRAM: _Program()}
        self._ended: list[bytes] = []  # those without a connection, the latest last

    def connect(self, program: bytes) -> None:
        """Calls of a program come from one more connection."""
        with self._lock:
            self._programs.setdefault(program, _Program()).connections += 1
            if program in self._ended:
                self._ended.remove(program)

    def disconnect(self, programs: Iterable[bytes]) -> None:
        """A connection has ended, from which calls of these programs had come."""
        with self._lock:
            for program in programs:
                self._programs[program].connections -= 1
                if not self._programs[program].connections:
                    self._ended.append(program)

    def use(self, packed: bytes, program: bytes) -> None:
        """Make the modules of a program the ones to be found, and no others. Raises what importing does."""
        if packed != self._packed or program != self._program:
            self._change(packed, program)
        sys.path += self._programs[self._program].folders
        # A function may have put finders of its own before us.
        if not sys.meta_path or sys.meta_path[0] is not self:
            sys.meta_path[:] = [self, *(finder for finder in sys.meta_path if finder is not self)]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Called by `import`."""
        del path, target
        module = self._programs[self._program].wanted.get(fullname)
        if module is None:
            return None
        if module.path == module.folder:  # A package that is nothing but a folder.
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [module.folder]
            return spec
        if module.path.endswith(COMPILED):
            return importlib.util.spec_from_file_location(fullname, module.path)
        folder = Path(module.path).parent if module.folder is None else Path(module.folder).parent
        if any(parent.is_file() for parent in Path(module.path).parents):  # In a zip file, with all its data.
            return zipimport.zipimporter(str(folder)).find_spec(fullname)
        loader: Any = _Loader(fullname, module.path, module.text or "")
        return importlib.util.spec_from_file_location(
            fullname,
            module.path,
            loader=loader,
            submodule_search_locations=None if module.folder is None else [module.folder],
        )

    def _change(self, packed: bytes, program: bytes) -> None:
        folders, modules = pickle.loads(packed) if packed else ((), ())
        with self._lock:
            new = self._programs.setdefault(program, _Program())
        news = new.complete([Module(*module) for module in modules])
        self._packed = None
        if program != self._program:
            self._leave()
            self._program = program
            self._drop_ended()
            self._hide(new.wanted)
            sys.modules.update(new.aside)
            new.aside.clear()
            (new.settings or self._settings).apply()
            current.id = program
            classes.use(new.copies)
        self._hide(module.name for module in news if not new.owns(module.name))
        changed = [
            module.name for module in news if new.wanted.get(module.name, module).digest != module.digest
        ]
        new.folders = folders
        new.wanted.update((module.name, module) for module in news)
        self._reload([name for name in changed if name in sys.modules])
        self._packed = packed

    def _reload(self, names: list[str]) -> None:
        """Do as the program has done: load modules anew. Those that others import come last in `names`."""
        try:
            for name in reversed(names):
                importlib.reload(sys.modules[name])
        except BaseException:
            for name in names:  # The next call shall not find them half done.
                sys.modules.pop(name, None)
            raise

    def _leave(self) -> None:
        """Put the modules of the program aside that was in use."""
        old = self._programs[self._program]
        old.settings = Settings()
        for name in set(sys.modules).difference(self._libraries):
            if old.owns(name):
                old.aside[name] = sys.modules[name]
            else:
                self._libraries.add(name)
        for name in old.aside:
            del sys.modules[name]
        sys.modules.update(self._hidden)
        self._hidden.clear()

    def _hide(self, names: Iterable[str]) -> None:
        """Put the worker's modules aside that have a name which the program uses itself."""
        for name in set(sys.modules).intersection(names):
            self._hidden[name] = sys.modules.pop(name)
            self._libraries.discard(name)

    def _drop_ended(self) -> None:
        with self._lock:
            surplus = [program for program in self._ended if program != self._program][:-MAX_ENDED]
            for program in surplus:
                self._ended.remove(program)
                del self._programs[program]
                self._on_drop(program)
