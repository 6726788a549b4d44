"""The two labels, and what they mean in every store, checkpoint and score."""

from __future__ import annotations

REAL, FAKE = 0, 1  # a score is P(fake)
LABEL_CONVENTION = {"real": REAL, "fake": FAKE}
CLASS_NAMES = {label: name for name, label in LABEL_CONVENTION.items()}
