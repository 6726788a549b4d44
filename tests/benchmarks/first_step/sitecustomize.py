"""With this folder on PYTHONPATH a Python process ends with code 7 at the end of its first optimizer step.

Python imports this module as it starts. Nothing is imported early: the hook is registered once the program itself has
imported torch's optimizers.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_OPTIMIZERS = "torch.optim.optimizer"


class _AsItIsImported:
    """A finder that finds torch's module as ever, and registers the hook once it has been loaded."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _OPTIMIZERS:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            module.register_optimizer_step_post_hook(lambda *_: os._exit(7))

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _AsItIsImported())
