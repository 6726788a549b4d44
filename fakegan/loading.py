"""Loads PyTorch Lightning without what it only looks at.

Nothing here has to be called: where it is not, `import pytorch_lightning` does the same, and later.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import sys
import types
from collections.abc import Iterator

from fakegan import signals

_LIBRARY = "pytorch_lightning"


def load_lightning() -> None:
    """Import PyTorch Lightning, and torch with it, where that has not been done."""
    if _LIBRARY in sys.modules:
        return
    with signals.at_once(), _no_collections():
        try:
            with _placeholder("scipy.signal", hamming=None):
                importlib.import_module(_LIBRARY)
        except (ImportError, AttributeError, ValueError) as error:  # a version that needs more than its name
            if "scipy" not in str(error):
                raise
            importlib.import_module(_LIBRARY)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Without garbage collections within: modules are no garbage, and looking a thousand times takes a second.

    Afterwards what has been loaded is left out of collections, which makes each of them cheaper, until the process
    ends: then libraries look for what is left over, and complain.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _placeholder(name: str, **attributes: object) -> Iterator[None]:
    """An empty module of that name within, unless there is one; afterwards it can be imported as if this had not been.

    TorchMetrics, which Lightning imports, spends more than a second on scipy.signal where SciPy is installed, only to
    give an old name, hamming, to a speech metric of another package. SciPy comes with Optuna; without it nobody
    misses that.
    """
    if name in sys.modules:
        yield
        return
    stand_in = types.ModuleType(name)
    vars(stand_in).update(attributes)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        package, _, leaf = name.rpartition(".")
        if vars(sys.modules.get(package, stand_in)).get(leaf) is stand_in:
            delattr(sys.modules[package], leaf)
