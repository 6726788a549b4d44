"""A composed config, completed: defaults of the classes that it names, names of networks, the view's description."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from fakegan.config.building import TARGET, completed, retargeted
from fakegan.config.typed import unknown
from fakegan.errors import UsageError
from fakegan.runs.pretrained import with_weights
from fakegan.runs.settings import AugmentSettings, ClassifierSettings, ModelSettings, StageBudget
from fakegan.runs.trainer_settings import TrainerSettings
from fakegan.views import VIEWS, view


def with_defaults(
    plain: Mapping[str, Any],
    said: Collection[str] = (),  # full keys that the words of the command name
) -> dict[str, Any]:
    """The values of a composed config, completed with the defaults of the classes that it names.

    Where an override names another class than YAML does, options that only YAML's class has are left out.

    Raises:
        UsageError: a key that such a class does not take, or a value of another type; a callback without a class.
    """
    for group in ("callbacks", "logger"):
        for name, node in (plain.get(group) or {}).items():
            if node is not None and not (isinstance(node, Mapping) and TARGET in node):
                raise unknown(f"{group}.{name}", node, [f"{group}.{known}" for known in plain[group]])
    for name, stage in plain.get("budget", {}).items():
        if isinstance(stage, Mapping) and len(stage) < len(fields(StageBudget)):  # of another name than is meant
            raise unknown(f"budget.{name}", stage, [f"budget.{known}" for known in plain["budget"]])
    kinds: dict[str, Any] = {"model": ModelSettings, "classifier": ClassifierSettings, "trainer": TrainerSettings}
    kinds["augment"] = AugmentSettings
    beside = {group: [f.name for f in fields(kind) if not f.metadata.get("rest")] for group, kind in kinds.items()}
    aside = {group: beside.get(group, ()) for group in plain}
    chosen = {group: retargeted(node, group, said, aside[group]) for group, node in plain.items()}
    chosen |= {
        group: _own_name(chosen[group], group, said) for group in ("model", "classifier", "augment") if group in chosen
    }
    complete = {group: completed(node, group, aside[group]) for group, node in chosen.items()}
    if "classifier" in complete:
        complete["classifier"] = with_weights(complete["classifier"], said)
    return {**complete, "pipeline": _with_view(plain["pipeline"])} if "pipeline" in plain else complete


def _own_name(node: Any, group: str, said: Collection[str]) -> Any:
    """Where an override replaces a group's net, the net that it wraps, or its module, that names the group."""
    net = node.get("net")
    wrapped = net.get("net") if isinstance(net, Mapping) else None
    for place, part in {f"{group}.net.net": wrapped, f"{group}.net": net, group: node}.items():
        if f"{place}.{TARGET}" in said and f"{group}.name" not in said and isinstance(part, Mapping):
            return {**node, "name": str(part[TARGET]).rpartition(".")[2]}
    return node


def _with_view(pipeline: Any) -> Any:
    """conf/pipeline with the description of a view of the user's own, which is imported for it."""
    name = pipeline.get("view") if isinstance(pipeline, Mapping) else None
    if not isinstance(name, str) or name in VIEWS or "." not in name:
        return pipeline
    try:
        found = view(name)
    except UsageError as error:
        raise UsageError(f"pipeline.{error}") from error
    shows = {"channels": found.channels, "arrays": list(found.arrays), "trains": found.trains}
    return {**pipeline, "shows": shows}
