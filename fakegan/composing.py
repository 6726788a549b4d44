"""A composed config, as Hydra and OmegaConf give it: made lasting, typed, and one sentence for whatever is wrong."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fakegan import places, reply
from fakegan.errors import FakeganError, ToldError, UsageError
from fakegan.places import CONF
from fakegan.typed import from_mapping, nearest
from fakegan.words import expanded, one_value, unreadable

T = TypeVar("T")


def register_resolvers() -> None:
    """`${project:data}`: a path of FakeGAN's own; `${run_dir:RESUME,NEW}`: the run to continue, or a new one."""
    OmegaConf.register_new_resolver("project", lambda name: str(places.own(name)), replace=True)
    OmegaConf.register_new_resolver(
        "run_dir", lambda resume, new: resume if isinstance(resume, str) and resume else str(new), replace=True
    )


def make_lasting(cfg: DictConfig) -> None:
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
def one_sentence() -> Iterator[None]:
    """Errors within end the process with a sentence and their exit code."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except FakeganError as error:
        _fail(error, str(error), error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        _fail(error, explain(error), UsageError.exit_code)
    except OSError as error:  # a full disk, a folder that cannot be written
        _fail(error, f"{error.filename or 'a file'}: {error.strerror or error}", FakeganError.exit_code)


def _fail(error: Exception, sentence: str, code: int) -> typing.NoReturn:
    if isinstance(error, ToldError):
        sys.exit(code)
    if os.environ.get("FAKEGAN_DEBUG"):
        raise error
    if not reply.give(error=sentence):
        print(f"error: {sentence}", file=sys.stderr)
    sys.exit(code)


def explain(error: Exception) -> str:
    """One sentence for a Hydra or OmegaConf error, with the nearest names where one is unknown."""
    text = str(error)
    if isinstance(error, MissingConfigException) and "launcher/submitit_" in (error.missing_cfg_file or ""):
        return f"a launcher for clusters needs submitit: {places.install('slurm')}"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={choice} does not exist: {nearest(choice, error.options)}"
    if isinstance(error, MissingMandatoryValue):
        missing = re.search(r"(?:full_key|key|value): ?([\w.]+)", text)
        return f"{missing.group(1) if missing else text.splitlines()[0]} must be given"
    several = re.search(r"Ambiguous value for argument '(([^=]+)=(.*?))'\n", text, re.DOTALL)
    if several:
        return f"{several[1]}: add -m to run each of these values, or write {one_value(several[2], several[3])}"
    if isinstance(error, OverrideParseException):
        return unreadable(error.override)
    if isinstance(error, ConfigCompositionException) and "hydra.sweeper.params" in text:
        return "hydra.sweeper.params is a table, to which keys are added with a plus: +hydra.sweeper.params.seed='1,2'"
    unknown = re.search(r"(?:Key '(\w+)' is not in struct|Could not override '([\w./@]+)')", text)
    if isinstance(error, ConfigCompositionException) and unknown:
        full = re.search(r"Could not override '([\w./@]+)'", text)
        key = full.group(1) if full else unknown.group(1)
        if (CONF / key).is_dir():
            return f"{key} is chosen with a plus: +{key}=..."
        return f"{key} is not a config key: {nearest(key, _known_keys())}"
    return " ".join(line.strip() for line in text.splitlines()[:2])


def _known_keys() -> list[str]:
    GlobalHydra.instance().clear()
    script = Path(sys.argv[0]).stem
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(script if (CONF / f"{script}.yaml").is_file() else "train")

    def leaves(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return [prefix]
        return [prefix][: bool(prefix)] + [k for key in node for k in leaves(node[key], f"{prefix}.{key}".strip("."))]

    return leaves(OmegaConf.to_container(cfg, resolve=False), "")


def settings_of(kind: type[T], cfg: DictConfig) -> T:
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
    plain = OmegaConf.to_container(cfg, resolve=True)
    complete = getattr(kind, "with_defaults", dict)
    return from_mapping(kind, complete(typing.cast("Mapping[str, Any]", plain)))


def _chosen(group: str) -> str | None:
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None
