"""A config that Hydra composes: its paths made absolute, its settings typed, its errors made one sentence."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fakegan.config.options import keys
from fakegan.config.overrides import one_value, text_from_hydra, unreadable
from fakegan.config.typed import flat, from_mapping, nearest, unknown
from fakegan.errors import AlreadyReportedError, FakeganError, UnknownKeyError, UntrustedError, UsageError
from fakegan.runs.config_file import PLACES
from fakegan.runs.defaults import with_defaults
from fakegan.runs.settings import EvaluateSettings, PipelineSettings, RunSettings
from fakegan.system import places, reply
from fakegan.system.places import CONF
from fakegan.system.shell import config_dir, expanded, quoted

_TABLES = ("callbacks", "logger")  # groups that hold nodes under names of the user's choice
SETTINGS: Mapping[str, type] = {"train": RunSettings, "evaluate": EvaluateSettings}  # by the file in conf/
HYDRAS_ERRORS = (HydraException, OmegaConfBaseException, ValueError)  # a ValueError only if `of_hydra`
_NO_CHOICE = "Config group override"  # begins the ValueError that Hydra raises for GROUP=null
T = TypeVar("T")


def register_resolvers() -> None:
    """`${project:data}`: a folder of FakeGAN's own; `${run_dir:RESUME,NEW}`: the run to resume, or a new one.

    `${run_name:}` names a run's folder.
    """
    OmegaConf.register_new_resolver("project", lambda name: str(places.own(name)), replace=True)
    OmegaConf.register_new_resolver(
        "run_dir", lambda resume, new: resume if isinstance(resume, str) and resume else str(new), replace=True
    )
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)


def _run_name(*, _root_: DictConfig) -> str:
    """The names of the pipeline and of the autoencoder and classifier that it has, and the seed."""
    plain = {group: known(_root_[group]) for group in ("pipeline", "model", "classifier")}
    needed = dict.fromkeys(plain, True)
    with contextlib.suppress(UsageError):  # raised again when the run's settings are made
        plain = with_defaults(plain, _typed_keys(_root_.hydra.overrides.task))
        pipeline = from_mapping(PipelineSettings, plain["pipeline"])
        needed |= {"model": pipeline.needs_autoencoder, "classifier": pipeline.trains_classifier}
    return "_".join([*(str(node.get("name")) for group, node in plain.items() if needed[group]), f"s{_root_.seed}"])


def _typed_keys(overrides: Sequence[str]) -> list[str]:
    return [override.lstrip("+~").partition("=")[0] for override in overrides]


def composed(
    name: str,  # of the file in conf/
    overrides: Sequence[str] = (),
    argv: Sequence[str] | None = None,  # that may hold --config-dir; None: this process's
) -> DictConfig:
    """A config with Hydra's own node, composed without running anything."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides, *searched(argv)], return_hydra_config=True)


def folders() -> list[Path]:
    """conf/, and the config folder of this command's --config-dir."""
    return [folder for folder in (CONF, config_dir(sys.argv)) if folder is not None]


def searched(argv: Sequence[str] | None = None) -> list[str]:
    """Hydra's override that searches in the --config-dir of these arguments, or of this process's, too."""
    folder = config_dir(sys.argv if argv is None else argv)
    return [] if folder is None else [f"hydra.searchpath=[{quoted(f'file://{folder}')}]"]


def make_paths_absolute(cfg: DictConfig) -> None:
    """Prepare a composed config for config.yaml: it means the same in another folder, and when it is resumed."""
    if cfg.get("resume"):  # true, in a sweep
        cfg.resume = None
    for key in (*PLACES, "paths.run_dir"):
        path = OmegaConf.select(cfg, key)  # None where it is missing, too
        if isinstance(path, str):  # else the settings refuse it
            OmegaConf.update(cfg, key, str(Path(expanded(path)).absolute()))


def root_of(cfg: DictConfig) -> dict[str, str]:
    """The store of a composed config as `give_places` takes it; nothing for the built-in faces."""
    root = OmegaConf.select(cfg, "data.root")
    return {} if root is None else {"data.root": str(root)}


def settings_of(
    kind: type[T],
    cfg: DictConfig,
    overrides: Sequence[str] | None = None,  # that it was composed with; None: Hydra's own list
) -> T:
    """The typed settings of a composed config; a UsageError for a wrong key or value, named in full."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        _refuse_unknown_keys(kind, known(cfg))  # first: the missing key may be there with a typing error, data.rooot
        hint = " (the folder that python -m fakegan.prepare wrote)" if missing[0] == "data.root" else ""
        raise UsageError(f"{missing[0]} must be given: add {missing[0]}=...{hint}")
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra and hydra.runtime.choices.get("data") == "faces" and OmegaConf.select(cfg, "data.root") is None:
        raise UsageError("data.root=null names no faces: give the folder that prepare wrote, or choose data=demo")
    if overrides is None:
        overrides = hydra.overrides.task if hydra else []
    typed = _typed_keys(overrides)
    plain = typing.cast("Mapping[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    try:
        complete = check_keys(kind, plain, typed)
    except UnknownKeyError as error:
        raise _of_experiment(error, typed, overrides) or error from None
    with _hinting(kind, plain):
        settings = from_mapping(kind, complete)
    if isinstance(settings, RunSettings):
        _check_following(settings, typed)
    return settings


def _of_experiment(error: UnknownKeyError, typed: Sequence[str], overrides: Sequence[str]) -> UsageError | None:
    """The error for a key that nobody typed: an experiment sets it for the choice that it makes itself."""
    group, asked = error.key.partition(".")[0], [override.lstrip("+") for override in reversed(overrides)]
    experiment = next((word for word in asked if word.startswith("experiment=")), None)
    choice = next((word for word in asked if word.startswith(f"{group}=")), None)
    if experiment is None or choice is None or error.key in typed:
        return None
    return UsageError(f"{choice} has no {error.key}, which +{experiment} sets: leave {choice} out, or the experiment")


def _refuse_unknown_keys(kind: type, plain: Mapping[str, Any]) -> None:
    """Raise an UnknownKeyError for a key that does not exist, in a config of which some values are missing."""
    with _hinting(kind, plain):
        try:
            from_mapping(kind, check_keys(kind, plain))
        except UnknownKeyError:
            raise
        except UsageError:  # about a value that is missing
            pass


def _check_following(settings: RunSettings, typed: Sequence[str]) -> None:
    """Raise a UsageError for a network's typed channels that the view contradicts, or size that the store does."""
    view = settings.pipeline.seen
    for key in typed:
        if (sized := re.fullmatch(r"(model|classifier)\.(?:(\w+)\.)?size", key)) is not None:
            node = getattr(settings, sized[1]).node
            value = (node.get(sized[2], {}) if sized[2] else node).get("size")
            if value != settings.face_size:
                faces = f"the store's faces have {settings.face_size} pixels a side"
                raise UsageError(f"{key}={value} is no choice: {faces}; leave it out")
        found = re.fullmatch(r"classifier\.(\w+)\.(in|out)_channels", key)
        value = settings.classifier.node[found[1]].get(key.rpartition(".")[2]) if found else None
        if view is not None and found and value != view.channels:
            raise UsageError(
                f"{key}={value} is no choice: pipeline.view={settings.pipeline.view} has {view.channels} channels; "
                "leave it out"
            )


def check_keys(
    kind: type,
    plain: Mapping[str, Any],
    typed: Sequence[str] = (),  # keys of the command's overrides
) -> dict[str, Any]:
    """A config with its defaults; a UsageError for a key that it cannot have, or that changes nothing in it."""
    data = plain.get("data")
    if isinstance(data, Mapping) and "name" not in data:
        raise UsageError(f"data.{next(iter(data))} needs a choice of data beside it: add data=faces")
    with _hinting(kind, plain):
        names = [f.name for f in fields(kind)]
        for key in plain:
            if key not in names:
                raise unknown(key, plain[key], names)
        complete = with_defaults(plain, typed)
    left_out = [f"{table}.{name}" for table in _TABLES for name, node in (plain.get(table) or {}).items() if not node]
    there = [*_known_keys(), *(f"logger.{name}" for name in _choices("logger"))] if left_out else []
    for key in left_out:
        if key not in there:
            raise UnknownKeyError(key, nearest(key, there))
    return complete


@contextlib.contextmanager
def _hinting(kind: type, plain: Mapping[str, Any]) -> Iterator[None]:
    """Within, the hint for an unknown key is the nearest of all keys; a callback or logger may also be a new one."""
    try:
        yield
    except UnknownKeyError as error:
        group, _, name = error.key.partition(".")
        hint = nearest(error.key, [key for key in keys(kind, plain) if key != error.key])
        if group in _TABLES and "." in name:
            new = f"{group}.{name.partition('.')[0]}._target_=package.module.Class"
            hint = f"{hint if hint.endswith('?') else f'{hint}.'} A new one names its class: {new}"
        raise UnknownKeyError(error.key, hint) from None


def known(node: Any) -> Any:
    """A config as plain values; a value that is not known before the config runs is an empty text."""
    if not isinstance(node, DictConfig):
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    values: dict[str, Any] = {}
    for key in map(str, node):
        try:
            values[key] = "???" if OmegaConf.is_missing(node, key) else known(node[key])
        except (OmegaConfBaseException, ValueError):
            values[key] = ""
    return values


def _known_keys(of_hydra: bool = False) -> list[str]:
    """Every key of this command's config with its default choices, or of Hydra's node in it."""
    script = Path(sys.argv[0]).stem
    name = script if script in SETTINGS else "train"
    plain = known(composed(name))
    hydras = {"hydra": plain.pop("hydra")}
    return [key for key, _ in flat(hydras)] if of_hydra else keys(SETTINGS[name], plain)


def _choices(group: str) -> list[str]:
    return sorted({file.stem for folder in folders() for file in (folder / group).glob("*.yaml")})


@contextlib.contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Within, an error ends the process with one sentence and its exit code; FAKEGAN_DEBUG=1 shows the trace."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except (FakeganError, OSError, *HYDRAS_ERRORS) as error:
        code = FakeganError.exit_code
        if isinstance(error, FakeganError):
            code = error.exit_code
            sentence = error.with_overrides() if isinstance(error, UntrustedError) else str(error)
        elif of_hydra(error):
            code, sentence = UsageError.exit_code, explain(error)
        elif isinstance(error, OSError):  # a full disk, a folder that cannot be written
            sentence = f"{error.filename or 'a file'}: {error.strerror or error}"
        else:
            raise
        if isinstance(error, AlreadyReportedError):
            sys.exit(code)
        if os.environ.get("FAKEGAN_DEBUG"):
            raise
        if not reply.give(error=sentence):
            print(f"error: {sentence}", file=sys.stderr)
        sys.exit(code)


def of_hydra(error: Exception) -> bool:
    """Whether an error is Hydra's or OmegaConf's about a config, which `explain` explains."""
    return isinstance(error, HydraException | OmegaConfBaseException) or _NO_CHOICE in str(error)


def explain(error: Exception) -> str:
    """One sentence for a Hydra or OmegaConf error, with the nearest names where a name is unknown."""
    text = text_from_hydra(str(error))
    if _NO_CHOICE in text:
        return _no_choice()
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if f"{group}/{choice}".startswith("hydra/launcher/submitit_"):
            return f"a launcher for clusters needs submitit: {places.install('slurm')}"
        options = error.options or _choices(group)  # for a list of choices Hydra names none
        if options:
            return f"{group}={choice} does not exist: {nearest(choice, options)}"
    if isinstance(error, MissingMandatoryValue):
        missing = re.search(r"(?:full_key|key|value): ?([\w.]+)", text)
        return f"{missing.group(1) if missing else text.splitlines()[0]} must be given"
    several = re.search(r"Ambiguous value for argument '(?:\+\+)?(([^=]+)=(.*?))'\n", text, re.DOTALL)
    if several:
        return f"{several[1]}: add -m to run each of these values, or write {one_value(several[2], several[3])}"
    if isinstance(error, OverrideParseException):
        return unreadable(text_from_hydra(error.override))
    if isinstance(error, ConfigCompositionException) and "hydra.sweeper.params" in text:
        return (
            "hydra.sweeper.params is a table, to which keys are added with a plus: +hydra.sweeper.params.seed='1,2'; "
            "keys with dots stand in a YAML file, or by themselves among the overrides: -m classifier.net.dropout=.1,.3"
        )
    about_key = _explain_key(text) if isinstance(error, ConfigCompositionException) else None
    return about_key or " ".join(line.strip() for line in text.splitlines()[:2])


def _no_choice() -> str:
    """A sentence for GROUP=null, which Hydra's error does not name."""
    groups = [key for key, _, value in (argument.partition("=") for argument in sys.argv[1:]) if value == "null"]
    group = next((key for key in groups if _choices(key)), "GROUP")
    if group == "classifier":
        return "classifier=null chooses nothing: a run without a classifier is pipeline=autoencoder or recon_error"
    return f"{group}=null chooses nothing: a choice names a file in conf/; ~{group}.NAME leaves out one part"


def _explain_key(text: str) -> str | None:
    """A sentence for Hydra's error about a key that it cannot set, add or take away."""
    twice = re.search(r"Multiple values for ([\w./@]+)\..* '?override \1: (\w+)", text, re.DOTALL)
    if twice:
        return f"{twice[1]} has a choice already: give it once, without a plus: {twice[1]}={twice[2]}"
    there = re.search(r"An item is already at '([\w.]+)'.*?'\1=([^'\n]*)'", text, re.DOTALL)
    if there:
        return f"{there[1]} has a value already: leave out the plus: {there[1]}={there[2]}"
    found = re.search(r"(?:override|delete from config\.) '([\w./@]+)'", text)
    if not found:
        return None
    key, dotted = found[1], found[1].replace("/", ".")
    if "/" not in key and any((folder / key).is_dir() for folder in folders()):
        return f"{key} is chosen with a plus: +{key}=..."
    names = _known_keys(of_hydra=key.startswith("hydra."))
    if dotted in names and dotted != key:
        return f"{key} is no choice of conf/: name what is to be built with {dotted}._target_=package.module.Class"
    if dotted in names and key.startswith("hydra.launcher.") and found[0].startswith("override"):
        return f"{key} is an option of hydra/launcher=processes, not of the launcher that you chose: leave one out"
    if dotted in names:
        return f"~{key}: no file of conf/ names it, it is as its class has it; {key}=VALUE changes it"
    groups = [] if "." in key else [folder.name for place in folders() for folder in place.iterdir() if folder.is_dir()]
    return f"{key} is not a config key: {nearest(key, [*names, *groups])}"
