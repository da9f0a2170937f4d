"""Imports the user's own modules from the texts that come with a call."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from distribute_challenge.wire.payload import NO_SCOPE, Module, is_this_package

MAX_TEXTS = 1024
Key = tuple[bytes, str, str]  # scope, name, digest


class ShippedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of the call under way. A module that was loaded stays, until its text is another."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()  # by digest, the latest last
        self._wanted: dict[str, Module] = {}
        self._scope = NO_SCOPE
        self._loaded: dict[str, Key] = {}  # what is in sys.modules by our doing
        self._aside: OrderedDict[Key, types.ModuleType] = OrderedDict()  # what was, the latest last

    @property
    def are_in_use(self) -> bool:
        """Whether the last call had any."""
        return bool(self._wanted or self._loaded)

    def use(self, modules: Iterable[Module], scope: bytes) -> None:
        """Make these modules, and no others that were shipped, the ones to be found.

        Each executor with an initializer has a scope, and modules of its own.
        """
        self._wanted = {module.name: module for module in modules}
        if any(map(is_this_package, self._wanted)):
            raise ImportError("the worker's own modules cannot be replaced")
        for module in self._wanted.values():
            if module.text is not None:
                self._texts[module.digest] = module.text
            elif module.digest not in self._texts:
                raise RuntimeError(f"this worker has forgotten the module {module.name}: connect again")
            self._texts.move_to_end(module.digest)
        # Those of the last call are put aside, and those of this one taken up again where they were left.
        for name, key in self._loaded.items():
            module_there = sys.modules.pop(name, None)
            if module_there is not None:
                self._aside[key] = module_there
                self._aside.move_to_end(key)
        self._loaded = {}
        for name, module in self._wanted.items():
            key = (scope, name, module.digest)
            sys.modules.pop(name, None)  # One of the same name that a function found here.
            if key in self._aside:
                sys.modules[name] = self._aside[key]
                self._loaded[name] = key
        self._scope = scope
        while len(self._aside) > MAX_TEXTS:
            self._aside.popitem(last=False)
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
        self._loaded[shipped.name] = (self._scope, shipped.name, shipped.digest)
        exec(code, vars(module))
