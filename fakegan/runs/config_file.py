"""A run's config.yaml: written before it runs; read again to resume or score the run, wherever it came from."""

from __future__ import annotations

import logging
import os
import re
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # OmegaConf's own reader
from omegaconf import OmegaConf

from fakegan.config.building import with_own_defaults
from fakegan.config.typed import from_mapping, to_mapping
from fakegan.data.store import stored_fingerprint, stored_geometry
from fakegan.errors import FakeganError, UntrustedError, UsageError, one_line
from fakegan.runs.began import fingerprint_at_start, refuse_other_size
from fakegan.runs.folder import CONFIG_FILE, METRICS_FILE, is_exported
from fakegan.runs.pretrained import FILE, digest_of_weights
from fakegan.runs.settings import RunSettings
from fakegan.system.files import replacing
from fakegan.system.shell import as_override, command

# What a run may find elsewhere.
PLACES = ("data.root", "model.checkpoint", "classifier.weights_file", "paths.data_dir", "paths.artifact_dir")
# Classes that have moved, for the files of runs that earlier versions began.
_MOVED = {
    "fakegan.modules.": "fakegan.training.",
    "fakegan.callbacks.": "fakegan.training.callbacks.",
    "fakegan.epochs.": "fakegan.training.progress.",
    "fakegan.stopping.": "fakegan.training.stopping.",
    "fakegan.nets.resnet.ResNet": "fakegan.nets.backbone.Backbone",
}
_MAX_CONFIG_BYTES = 100_000  # train.py writes some 1,500
_MAX_CONFIG_DEPTH = 30  # train.py's is some 5; a net of nets may have more
log = logging.getLogger(__name__)


def write_down(settings: RunSettings, run_dir: Path) -> None:
    """Write a run's config.yaml: all of its settings, defaults included.

    Raises:
        UsageError: another run is there.
        FakeganError: the folder cannot be written.
    """
    values = to_mapping(settings)
    del values["trust"]  # a file does not say what is to be trusted
    text = OmegaConf.to_yaml(OmegaConf.create(values))
    try:
        try:
            _write_new(text, run_dir)
        except FileNotFoundError:  # the command that made the folder was refused, and has taken it away
            _write_new(text, run_dir)
    except FileExistsError:
        raise UsageError(
            f"{run_dir} holds a run already: choose another hydra.run.dir, or resume it with "
            f"{command('train.py', as_override('resume', run_dir))}"
        ) from None
    except OSError as error:
        raise FakeganError(f"{run_dir} cannot be written ({error}): choose another hydra.run.dir") from error


def _write_new(text: str, run_dir: Path) -> None:
    """Write config.yaml whole; raise a FileExistsError if it exists, even if another process wrote it just now."""
    building, target = run_dir / f".{CONFIG_FILE}.{os.getpid()}", run_dir / CONFIG_FILE
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        building.write_text(text, encoding="utf-8")
        try:
            os.link(building, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if target.exists():
                raise FileExistsError(target) from None
            building.rename(target)
    finally:
        building.unlink(missing_ok=True)


def runs_under(folder: Path) -> list[Path]:
    """The folder itself where it is a run, else the runs in it, by name."""
    if (folder / CONFIG_FILE).is_file():
        return [folder]

    def order(path: Path) -> list[tuple[bool, int, str]]:  # 10_x after 9_x
        parts = re.split(r"(\d+)", str(path))
        return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]

    return sorted((path.parent for path in folder.rglob(CONFIG_FILE)), key=order)


def run_at(place: Path) -> Path:
    """The run that a path names: its folder, or a file in it. Raises a UsageError, which names the runs below."""
    folder = place.parent if place.is_file() else place
    if (folder / CONFIG_FILE).is_file():
        return folder
    inside = runs_under(place) if place.is_dir() else []
    if not inside:
        raise UsageError(f"{place} is not a run: it has no {CONFIG_FILE}; name a folder that train.py wrote")
    finished = [run for run in inside if (run / METRICS_FILE).is_file()] or inside
    examples = ", ".join(str(run) for run in finished[-3:])
    raise UsageError(f"{place} is no run, but a folder of {len(inside)} runs: name one of them, such as {examples}")


def read_run(run_dir: str) -> RunSettings:
    """The settings that a run was started with; paths.run_dir is where its folder is now.

    A run may come from elsewhere: its config is held against the settings' keys, types and names, nothing in it is
    resolved, and no object is made of it but the settings.

    Raises:
        FakeganError: no run there, or a config.yaml that is damaged or not of train.py's making.
    """
    folder = run_at(Path(run_dir))
    path, run_dir = folder / CONFIG_FILE, str(folder)
    values = read_plain(path)
    if "trust" in values:
        raise UntrustedError(f"{path} says itself what is to be trusted, which train.py never writes")
    if isinstance(values.get("paths"), dict):
        values["paths"]["run_dir"] = run_dir
    try:
        return from_mapping(RunSettings, with_own_defaults(values))
    except (UsageError, OverflowError) as error:
        raise UsageError(f"{path}: {error!s:.300}; it may be of another version of FakeGAN") from error


def read_runs(places: Sequence[str]) -> list[RunSettings]:
    """The settings of runs; a folder stands for all runs below it. Raises a UsageError where there is none."""
    if not places:
        raise UsageError("name a run with run=DIR, or several with 'runs=[DIR,DIR]'")
    found: dict[Path, RunSettings] = {}
    for place in places:
        if is_exported(Path(place)):
            raise UsageError(f"runs takes folders of runs: score the exported file {place} alone, with run={place}")
        runs = runs_under(Path(place))
        if not runs:
            raise UsageError(f"there is no run at {place}: name directories that train.py wrote, or a folder of them")
        found |= {run.resolve(): read_run(str(run)) for run in runs}
    return list(found.values())


def give_places(
    run_dir: str,
    places: Mapping[str, str],  # by key, one of PLACES
) -> RunSettings:
    """Change places in a run's config.yaml, such as the place of its faces; returns the new settings.

    Raises:
        FakeganError: as `read_run`; other faces are there than the run began with.
    """
    path, run = Path(run_dir) / CONFIG_FILE, read_run(run_dir)
    values = read_plain(path)
    moved = {}
    for key, place in places.items():
        group, name = key.split(".")
        if values[group].get(name) != place:
            moved[key] = f"{run_dir}: {key} is {place} from now on; it was {values[group].get(name)}"
            values[group][name] = place
    if moved:
        own_place = {**values, "paths": {**values["paths"], "run_dir": run_dir}}
        run = from_mapping(RunSettings, with_own_defaults(own_place))
        _check_places(run, moved)
        with replacing(path) as building:
            building.write_text(OmegaConf.to_yaml(OmegaConf.create(values)), encoding="utf-8")
        for sentence in moved.values():
            log.info(sentence)
    return run


def _check_places(
    run: RunSettings,
    given: Collection[str],  # keys of the config whose values are new to it
) -> None:
    """Raise a FakeganError where a run that has begun cannot go on with its new places."""
    run_dir, root, checkpoint = run.paths.run_dir, run.data.root, run.model.checkpoint
    weights = run.classifier.weights_file
    if "data.root" in given and run.data.name == "demo":
        raise UsageError(f"{run_dir} learns from the built-in faces: give paths.data_dir, not data.root")
    if "data.root" in given and root is not None:
        found, wanted = stored_fingerprint(root), fingerprint_at_start(run_dir)
        if found is None:
            raise UsageError(f"data.root={root} is no face store: name the folder that the run's store is in now")
        if wanted and found != wanted:
            refuse_other_size(f"data.root={root}", stored_geometry(root).size, run_dir)
            raise FakeganError(f"data.root={root} holds other faces than {run_dir} began with: start a new run")
    if "model.checkpoint" in given and checkpoint is not None and not checkpoint.exists():
        raise UsageError(f"model.checkpoint={checkpoint} does not exist: name a run or an autoencoder.pt")
    if "classifier.weights_file" in given and weights is not None:
        if run.classifier.weights_sha256 is None:
            raise UsageError(f"{run_dir} begins without {FILE}: start a new run with it")
        digest_of_weights(weights, run.classifier.weights_sha256)


def read_plain(path: Path) -> dict[str, Any]:
    """The values of a YAML file that train.py wrote, unresolved: texts, numbers, lists and groups of keys.

    Raises:
        FakeganError: damaged, or with something in it that train.py never writes: it may come from elsewhere.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise FakeganError(f"{path} cannot be read ({error.strerror}): change its permissions") from error
    if len(content) > _MAX_CONFIG_BYTES:
        raise FakeganError(f"{path} is damaged: no config has more than {_MAX_CONFIG_BYTES // 1000} kB")
    try:
        text = content.decode("utf-8")
        _refuse_foreign(path, text)
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except FakeganError:
        raise
    except Exception as error:  # a YAML error of any kind
        raise FakeganError(f"{path} is damaged: {one_line(error, 200)}") from error
    if not isinstance(values, dict):
        raise FakeganError(f"{path} is damaged: it is no list of keys")
    return typing.cast("dict[str, Any]", with_new_targets(values))


def _refuse_foreign(path: Path, text: str) -> None:
    """Raise a FakeganError for YAML that train.py never writes: it may ask for code, for secrets or for all memory."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        value = getattr(event, "value", "")
        foreign = {
            "too many brackets": depth > _MAX_CONFIG_DEPTH,
            "a tag": getattr(event, "tag", None) is not None,
            "an alias": getattr(event, "anchor", None) is not None,  # a few lines of them are a million values
            "an interpolation": "${" in value,
            "a control character": re.search(r"[\x00-\x1f\x7f-\x9f]", value) is not None,
        }
        found = next((name for name, is_there in foreign.items() if is_there), None)
        if found is not None:
            line = event.start_mark.line + 1
            raise FakeganError(f"{path} has {found} in line {line}, which train.py never writes: do not trust this run")


def with_new_targets(values: Any) -> Any:
    """The values with each `_target_` of an earlier version by the present name of its class."""
    if isinstance(values, list):
        return [with_new_targets(value) for value in values]
    if not isinstance(values, dict):
        return values
    return with_new_target({key: with_new_targets(value) for key, value in values.items()})


def with_new_target(node: Any) -> Any:
    """A node whose own `_target_`, of an earlier version, has the present name of its class."""
    target = node.get("_target_") if isinstance(node, dict) else None
    for old, new in _MOVED.items():
        if isinstance(target, str) and target.startswith(old):
            node = {**node, "_target_": new + target.removeprefix(old)}
    return node
