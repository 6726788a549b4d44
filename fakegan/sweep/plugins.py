"""How Hydra comes to know plugins that lie in no `hydra_plugins` folder."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types

from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin

SCOPE = "hydra_plugins.fakegan"  # Hydra takes plugins from no other namespace


def register_plugin(plugin: type[Plugin]) -> None:
    """Let `_target_: hydra_plugins.fakegan.NAME` mean this class."""
    plugin.__module__ = SCOPE
    Plugins.instance().register(plugin)
    for name in ("hydra_plugins", SCOPE):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
        sys.modules.setdefault(name, types.ModuleType(name))
    setattr(sys.modules[SCOPE], plugin.__name__, plugin)
