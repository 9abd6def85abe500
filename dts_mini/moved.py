"""Floor 3: modules that moved stay importable under their old names, with a DeprecationWarning, until version 0.3."""

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "dts_mini.core.checkpoint": "dts_mini.streaming.checkpoint",
    "dts_mini.core.work": "dts_mini.streaming.resume",
    "dts_mini.core.drc": "dts_mini.ours.drc",
    "dts_mini.core.coding": "dts_mini.ours.coding",
    "dts_mini.core.fusion": "dts_mini.ours.weightings",
    "dts_mini.core.routing": "dts_mini.ours.router",
    "dts_mini.core.packing": "dts_mini.core.codes",
    "dts_mini.core.differences": "dts_mini.core.frame",
    "dts_mini.cluster": "dts_mini.streaming.cluster",
    "dts_mini.curves": "dts_mini.measures.curves",
    "dts_mini.unseen": "dts_mini.measures.unseen",
    "dts_mini.routing": "dts_mini.measures.routing",
    "dts_mini.suites.tables": "dts_mini.measures.tables",
    "dts_mini.suites.descriptors": "dts_mini.measures.descriptors",
    "dts_mini.suites.clip.pickles": "dts_mini.streaming.pickles",
}


class Moved(MetaPathFinder, Loader):
    """Finds a module of an old name, and fills it from where it is now."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is now {new}; change the import", DeprecationWarning, stacklevel=2)
        there = vars(importlib.import_module(new))
        vars(module).update({name: value for name, value in there.items() if not name.startswith("__")})


sys.meta_path.append(Moved())
