"""What TensorBoard, the usual logger, shows of a test."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fakegan.evaluation import plots
from fakegan.evaluation.verdicts import calls
from fakegan.runs.results import FaceScores
from fakegan.stages.scoring import ScoredFaces
from fakegan.stages.test import HPARAM_METRICS, log_test
from tests.conftest import Compose

Shown = Callable[..., tuple[EventAccumulator, dict[str, Any]]]


@pytest.fixture
def shown(compose_settings: Compose, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """The events and results of a test: twelve reals at 0.4; the generator `known` scores above them, `new` below."""
    monkeypatch.setattr(plots, "available", lambda: False)
    scores, labels = np.repeat([0.4, 0.9, 0.1], 12), np.repeat([0, 1, 1], 12)
    files = np.arange(36).astype(str)
    faces = FaceScores(
        files, np.repeat(["camera", "known", "new"], 12), labels, files, scores, scores >= 0.5, calls(scores >= 0.5)
    )

    def of(*learnt_from: str) -> tuple[EventAccumulator, dict[str, Any]]:
        tested, settings = ScoredFaces(faces, scores, 0.5, frozenset(learnt_from)), compose_settings()
        log_test(settings, {"test": tested.measures(), "objective": 0.75}, tested)
        row = EventAccumulator(str(settings.paths.run_dir)).Reload().PluginTagToContent("hparams")
        columns = HParamsPluginData.FromString(row["_hparams_/session_start_info"]).session_start_info.hparams
        results = {k: v.number_value for k, v in columns.items() if k.startswith("test/") or k == "objective"}
        return EventAccumulator(str(settings.paths.run_dir / "test"), {"histograms": 0}).Reload(), results

    return of


def test_seen_and_unseen_generators_stand_apart_and_never_together(shown: Shown) -> None:
    events, results = shown("camera", "known")
    apart = {f"test/{kind}/{name}" for kind in ("seen", "unseen") for name in HPARAM_METRICS}
    assert not events.Tags()["scalars"]  # a result as a curve would be a chart of one dot
    assert set(results) == {*apart, "test/auroc/known", "test/auroc/new", "objective"}
    assert [results[f"test/{kind}/auroc"] for kind in ("seen", "unseen")] == [1.0, 0.0]
    assert [results[f"test/auroc/{generator}"] for generator in ("known", "new")] == [1.0, 0.0]
    names = ("real", "seen_fake", "unseen_fake")
    assert set(events.Tags()["histograms"]) == {f"test/score_{name}" for name in names}
    found = [events.Histograms(f"test/score_{name}")[0].histogram_value for name in names]
    assert [histogram.num for histogram in found] == [12, 12, 12]
    assert [histogram.min for histogram in found] == [0.4, 0.9, 0.1]


def test_generators_of_one_kind_have_the_usual_names(shown: Shown) -> None:
    events, results = shown("camera", "known", "new")
    by_generator = {"test/auroc/known", "test/auroc/new"}
    assert set(results) == {*(f"test/{name}" for name in HPARAM_METRICS), *by_generator, "objective"}
    assert set(events.Tags()["histograms"]) == {"test/score_real", "test/score_fake"}
