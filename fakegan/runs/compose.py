"""A composed config, as Hydra and OmegaConf give it: made lasting, typed, and one sentence for whatever is wrong."""

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
from fakegan.config.overrides import text_from_hydra, one_value, unreadable
from fakegan.config.typed import flat, from_mapping, nearest, unknown
from fakegan.errors import AlreadyReportedError, FakeganError, UnknownKeyError, UntrustedError, UsageError
from fakegan.runs.settings import EvaluateSettings, RunSettings, with_defaults
from fakegan.system import places, reply
from fakegan.system.places import CONF
from fakegan.system.shell import config_dir, expanded, quoted

_TABLES = ("callbacks", "logger")  # groups that hold nodes under names of the user's choice
SETTINGS: Mapping[str, type] = {"train": RunSettings, "evaluate": EvaluateSettings}  # by the file in conf/
HYDRAS_ERRORS = (HydraException, OmegaConfBaseException, ValueError)  # the last if `of_hydra`
_NO_CHOICE = "Config group override"  # begins what Hydra says, as a ValueError, of GROUP=null
T = TypeVar("T")


def register_resolvers() -> None:
    """`${project:data}`: a path of FakeGAN's own; `${run_dir:RESUME,NEW}`: the run to continue, or a new one."""
    OmegaConf.register_new_resolver("project", lambda name: str(places.own(name)), replace=True)
    OmegaConf.register_new_resolver(
        "run_dir", lambda resume, new: resume if isinstance(resume, str) and resume else str(new), replace=True
    )


def make_paths_absolute(cfg: DictConfig) -> None:
    """Make a composed config one to keep: it means the same in another folder, and when it is read to go on."""
    if cfg.get("resume"):  # true, in a sweep
        cfg.resume = None
    for key in ("data.root", "model.checkpoint", "paths.run_dir", "paths.data_dir", "paths.artifact_dir"):
        path = OmegaConf.select(cfg, key)  # None where it is missing, too
        if isinstance(path, str):  # else the settings refuse it
            OmegaConf.update(cfg, key, str(Path(expanded(path)).absolute()))


def root_of(cfg: DictConfig) -> dict[str, str]:
    """Where a composed config finds its faces, as `give_places` takes it; nothing for the built-in ones."""
    root = OmegaConf.select(cfg, "data.root")
    return {} if root is None else {"data.root": str(root)}


@contextlib.contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Errors within end the process with a sentence and their exit code."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except FakeganError as error:
        _fail(error, error.in_words() if isinstance(error, UntrustedError) else str(error), error.exit_code)
    except HYDRAS_ERRORS as error:
        if not of_hydra(error):
            raise
        _fail(error, explain(error), UsageError.exit_code)
    except OSError as error:  # a full disk, a folder that cannot be written
        _fail(error, f"{error.filename or 'a file'}: {error.strerror or error}", FakeganError.exit_code)


def _fail(error: Exception, sentence: str, code: int) -> typing.NoReturn:
    if isinstance(error, AlreadyReportedError):
        sys.exit(code)
    if os.environ.get("FAKEGAN_DEBUG"):
        raise error
    if not reply.give(error=sentence):
        print(f"error: {sentence}", file=sys.stderr)
    sys.exit(code)


def of_hydra(error: Exception) -> bool:
    """Whether an error is Hydra's or OmegaConf's word on a config, which `explain` explains."""
    return isinstance(error, HydraException | OmegaConfBaseException) or _NO_CHOICE in str(error)


def explain(error: Exception) -> str:
    """One sentence for a Hydra or OmegaConf error, with the nearest names where one is unknown."""
    text = text_from_hydra(str(error))
    if _NO_CHOICE in text:
        return "GROUP=null chooses nothing: a choice names a file in conf/; ~GROUP.NAME leaves out one part"
    if isinstance(error, MissingConfigException) and "launcher/submitit_" in (error.missing_cfg_file or ""):
        return f"a launcher for clusters needs submitit: {places.install('slurm')}"
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = error.options or _choices(group)  # of a list of choices Hydra names none
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
            "keys with dots stand in a YAML file, or by themselves among the words: -m classifier.net.dropout=.1,.3"
        )
    return (isinstance(error, ConfigCompositionException) and _of_a_key(text)) or " ".join(
        line.strip() for line in text.splitlines()[:2]
    )


def _of_a_key(text: str) -> str | None:
    """A sentence for what Hydra says of a key that it cannot set, add or take away."""
    twice = re.search(r"Multiple values for ([\w./@]+)\..* '?override \1: (\w+)", text, re.DOTALL)
    if twice:
        return f"{twice[1]} has a choice already: give it once, without a plus: {twice[1]}={twice[2]}"
    there = re.search(r"An item is already at '([\w.]+)'.*?'\1=([^'\n]*)'", text, re.DOTALL)
    if there:
        return f"{there[1]} has a value already: leave out the plus: {there[1]}={there[2]}"
    found = re.search(r"(override|delete from config\.) '([\w./@]+)'", text)
    key = found[2] if found else ""
    if not key:
        return None
    if "/" not in key and any((folder / key).is_dir() for folder in folders()):
        return f"{key} is chosen with a plus: +{key}=..."
    known, dotted = _known_keys(hydras=key.startswith("hydra.")), key.replace("/", ".")
    if dotted in known and dotted != key:
        return f"{key} is no choice of conf/: name what is to be built with {dotted}._target_=package.module.Class"
    if dotted in known:
        return f"~{key}: no file of conf/ names it, it is as its class has it; {key}=VALUE changes it"
    return f"{key} is not a config key: {nearest(key, known)}"


def _choices(group: str) -> list[str]:
    return sorted({file.stem for folder in folders() for file in (folder / group).glob("*.yaml")})


def folders() -> list[Path]:
    """conf/, and the config folder of this command's --config-dir."""
    return [folder for folder in (CONF, config_dir(sys.argv)) if folder is not None]


def searched(words: Sequence[str] | None = None) -> list[str]:
    """Hydra's word for where to search besides conf/: the --config-dir of these words, or of this command's."""
    folder = config_dir(sys.argv if words is None else words)
    return [] if folder is None else [f"hydra.searchpath=[{quoted(f'file://{folder}')}]"]


def _known_keys(hydras: bool = False) -> list[str]:
    """Every key of this command's config, or of Hydra's part of it, with the groups that it has by itself."""
    script = Path(sys.argv[0]).stem
    name = script if script in SETTINGS else "train"
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain = known(compose(name, searched(), return_hydra_config=True))
    of_hydra = {"hydra": plain.pop("hydra")}
    return [key for key, _ in flat(of_hydra)] if hydras else keys(SETTINGS[name], plain)


def known(node: Any) -> Any:
    """A config as plain values, as far as they are known before it runs: the others are empty texts."""
    if not isinstance(node, DictConfig):
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return {str(key): _value(node, str(key)) for key in node}


def _value(node: DictConfig, key: str) -> Any:
    try:
        return "???" if OmegaConf.is_missing(node, key) else known(node[key])
    except (OmegaConfBaseException, ValueError):
        return ""


def settings_of(
    kind: type[T],
    cfg: DictConfig,
    words: Sequence[str] | None = None,  # it was composed with; None: those that Hydra knows of
) -> T:
    """The typed settings of a composed config.

    Raises:
        UsageError: an unknown or missing key, or a value of another type, named in full.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        hint = " (the folder that python -m fakegan.prepare wrote)" if missing[0] == "data.root" else ""
        raise UsageError(f"{missing[0]} must be given: add {missing[0]}=...{hint}")
    if OmegaConf.select(cfg, "data.root") is None and _chosen("data") == "faces":
        raise UsageError("data.root=null names no faces: give the folder that prepare wrote, or choose data=demo")
    plain = typing.cast("Mapping[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    said = _said(words)
    check_keys(kind, plain, said)
    with _hinting(kind, plain):
        return from_mapping(kind, with_defaults(plain, said))


def _said(words: Sequence[str] | None) -> list[str]:
    """The keys that the words of this run, or of this job of a sweep, have named."""
    if words is None:
        words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [word.lstrip("+~").partition("=")[0] for word in words]


def check_keys(
    kind: type,
    plain: Mapping[str, Any],
    said: Sequence[str] = (),  # keys that words have named
) -> None:
    """Raise a UsageError for a key that a config of such settings cannot have, or that changes nothing in it."""
    data = plain.get("data")
    if isinstance(data, Mapping) and "name" not in data:
        raise UsageError(f"data.{next(iter(data))} needs a choice of data beside it: add data=faces")
    with _hinting(kind, plain):
        names = [f.name for f in fields(kind)]
        for key in plain:
            if key not in names:
                raise unknown(key, plain[key], names)
        with_defaults(plain, said)
    left_out = [f"{table}.{name}" for table in _TABLES for name, node in (plain.get(table) or {}).items() if not node]
    there = [*_known_keys(), *(f"logger.{name}" for name in _choices("logger"))] if left_out else []
    for key in left_out:
        if key not in there:
            raise UnknownKeyError(key, nearest(key, there))


@contextlib.contextmanager
def _hinting(kind: type, plain: Mapping[str, Any]) -> Iterator[None]:
    """Within, an unknown key is told with the nearest of all keys; a callback or logger may also be a new one."""
    try:
        yield
    except UnknownKeyError as error:
        group, _, name = error.key.partition(".")
        hint = nearest(error.key, [key for key in keys(kind, plain) if key != error.key])
        if group in _TABLES and "." in name:
            new = f"{group}.{name.partition('.')[0]}._target_=package.module.Class"
            hint = f"{hint if hint.endswith('?') else f'{hint}.'} A new one names its class: {new}"
        raise UnknownKeyError(error.key, hint) from None


def _chosen(group: str) -> str | None:
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None
