"""What the page tells of its detector beside the detector's own numbers: name, sources learnt from, model card."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from fakegan.errors import FakeganError
from fakegan.judge import Judge
from fakegan.onnx_detector import OnnxDetector
from fakegan.runs.config_file import read_run
from fakegan.runs.finished import FinishedRun, exported_learnt_from
from fakegan.runs.folder import DETECTOR_FILE, METRICS_FILE
from fakegan.runs.portable import is_portable, texts_of

log = logging.getLogger(__name__)


def told_of(place: Path, detector: Judge) -> dict[str, Any]:
    """Name, `learnt_from` (None: not known) and `card` (Markdown; "": none) of a run's folder or an exported file.

    A run whose results cannot be read still judges pictures: the log says why there is no card.
    """
    place = place.absolute()
    folder = place.parent if place.name == DETECTOR_FILE else place
    told = {"name": folder.name, "learnt_from": None, "card": ""}
    if isinstance(detector, OnnxDetector) or is_portable(place):
        texts = detector.texts if isinstance(detector, OnnxDetector) else texts_of(place)
        learnt_from = exported_learnt_from(json.loads(texts["fakegan"]))
        return {**told, "learnt_from": learnt_from or None, "card": texts.get("card", "")}
    if (folder / METRICS_FILE).is_file():
        from fakegan.detector import Detector  # and torch, which an exported file may do without
        from fakegan.reports.card import model_card

        assert isinstance(detector, Detector)
        try:
            run = FinishedRun(read_run(str(folder)), folder)
            return {**told, "learnt_from": sorted(run.learnt_from), "card": model_card(folder, detector)}
        except FakeganError as error:
            log.warning(f"no model card: {error}")
    return told
