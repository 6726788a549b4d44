"""Lightning is loaded without what it only looks at, and all works as if it had been loaded in full."""

import contextlib
import subprocess
import sys

import pytest

from fakegan import loading
from fakegan.modules.classifier import NETS
from fakegan.pipeline import settings

_LOAD = """
import gc, sys
from fakegan.loading import load_lightning
load_lightning()
assert gc.isenabled()
assert "pytorch_lightning" in sys.modules
assert "scipy.signal" not in sys.modules
"""
_USE = """
import torch
from torchmetrics.classification import BinaryAUROC
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
assert BinaryAUROC()(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1])) == 0.75
assert abs(ssim(torch.ones(1, 3, 16, 16), torch.ones(1, 3, 16, 16), data_range=1.0) - 1) < 1e-6
import importlib.util
if importlib.util.find_spec("scipy"):
    import scipy
    from scipy.signal import convolve
    assert convolve([1, 2], [1, 3]).tolist() == [1, 5, 6]
    assert scipy.signal.convolve is convolve
"""


@pytest.mark.slow
def test_lightning_loaded_here_is_all_of_it_and_scipy_is_there_for_who_asks() -> None:
    command = [sys.executable, "-c", _LOAD + _USE]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert "leak" not in result.stderr  # no library finds any at the end


def test_a_placeholder_is_gone_afterwards() -> None:
    name = "json.no_such_module"
    with loading._placeholder(name, hamming=None):
        assert sys.modules[name].hamming is None
    assert name not in sys.modules
    with pytest.raises(RuntimeError), loading._placeholder(name):
        raise RuntimeError
    assert name not in sys.modules


def test_what_is_there_keeps_its_place() -> None:
    import json.decoder

    with loading._placeholder("json.decoder", hamming=None):
        assert sys.modules["json.decoder"] is json.decoder
    assert sys.modules["json.decoder"] is json.decoder


def test_a_version_that_needs_more_than_the_name_is_loaded_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def importing(name: str) -> None:
        seen.append("scipy.signal" in sys.modules and not hasattr(sys.modules["scipy.signal"], "convolve"))
        if len(seen) == 1:
            raise ImportError("cannot import name 'convolve' from 'scipy.signal'")

    monkeypatch.setattr(loading, "_LIBRARY", "no_such_library")
    monkeypatch.setattr(loading, "_no_collections", contextlib.nullcontext)
    monkeypatch.setattr(loading.importlib, "import_module", importing)
    monkeypatch.delitem(sys.modules, "scipy.signal", raising=False)
    loading.load_lightning()
    assert seen == [True, False]


def test_settings_know_the_nets_that_learn() -> None:
    assert set(settings.NETS) == set(NETS) - {"recon_error"}
