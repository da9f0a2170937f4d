"""Imports the user's own modules from the texts that come with a call."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from distribute_challenge.wire.payload import Module

MAX_TEXTS = 1024


class ShippedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of the call under way. A module that was loaded stays, until its text is another."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()  # by digest, the latest last
        self._wanted: dict[str, Module] = {}
        self._loaded: dict[str, str] = {}  # name -> digest, of what is in sys.modules by our doing

    def use(self, modules: Iterable[Module]) -> None:
        """Make these modules, and no others that were shipped, the ones to be found."""
        self._wanted = {module.name: module for module in modules}
        for module in self._wanted.values():
            if module.text is not None:
                self._texts[module.digest] = module.text
            self._texts.move_to_end(module.digest)
        for name, digest in list(self._loaded.items()):
            if name not in self._wanted or self._wanted[name].digest != digest:
                del self._loaded[name]
                sys.modules.pop(name, None)
        for name in self._wanted:
            if name not in self._loaded:
                sys.modules.pop(name, None)  # One of the same name that a function found here.
        while len(self._texts) > MAX_TEXTS + len(self._wanted):
            self._texts.popitem(last=False)
        # A function may have changed the list, or put finders of its own before us.
        if sys.meta_path[:1] != [self]:
            sys.meta_path[:] = [self, *(finder for finder in sys.meta_path if finder is not self)]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Called by `import`."""
        del path, target
        module = self._wanted.get(fullname)
        if module is None:
            return None
        spec = importlib.util.spec_from_loader(fullname, self, origin=module.path)
        if spec is not None:
            spec.has_location = True
            if module.folder is not None:
                spec.submodule_search_locations = [module.folder]
        return spec

    def exec_module(self, module: types.ModuleType) -> None:
        """Called by `import`."""
        shipped = self._wanted[module.__name__]
        code = compile(self._texts[shipped.digest], shipped.path, "exec", dont_inherit=True)
        self._loaded[shipped.name] = shipped.digest
        exec(code, vars(module))
