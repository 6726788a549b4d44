"""The start of a run: a new run is written down, a run that `resume` names is read back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fakegan.config.overrides import from_hydra
from fakegan.config.trust import RUN_SOURCES, refuse_unreadable, refuse_untrusted_run, trust_names
from fakegan.config.typed import to_mapping
from fakegan.errors import UsageError
from fakegan.runs.claim import Claiming, give_up
from fakegan.runs.compose import make_paths_absolute, settings_of
from fakegan.runs.config_file import PLACES, give_places, read_plain, read_run, run_at, runs_under, write_down
from fakegan.runs.folder import CONFIG_FILE
from fakegan.runs.settings import OF_DEMO, RunSettings
from fakegan.runs.status import earlier_runs, record_job
from fakegan.sweep import command as sweeps
from fakegan.system import processes, ranks, reply
from fakegan.system.shell import as_override, command, trusting

log = logging.getLogger(__name__)
_run: RunSettings | None = None  # of this process: a signal's handler asks for it, so it cannot be handed down


def run_folder() -> Path | None:
    """The folder of the run that this process has begun or resumed."""
    return _run.paths.run_dir if _run else None


def to_resume(run_dir: Path) -> str:
    """The command that resumes a run; for this process's own run it names the packages that the run trusts."""
    own = _run if _run and run_dir.resolve() == _run.paths.run_dir.resolve() else None
    return command("train.py", as_override("resume", run_dir), *trusting(own.trusted if own else ()))


def start_run(cfg: DictConfig) -> RunSettings:
    """The settings of a run, written down as config.yaml before it runs, or read back with `resume`."""
    global _run  # noqa: PLW0603
    ranks.connect()
    _run = _resumed(cfg, cfg.resume) if isinstance(cfg.get("resume"), str) else _new(cfg)
    reply.give(folder=str(_run.paths.run_dir))
    return _run


def _new(cfg: DictConfig) -> RunSettings:
    if cfg.get("resume"):
        raise UsageError("resume=true is for sweeps, with -m and hydra.sweep.dir=DIR; to resume a run, give resume=DIR")
    make_paths_absolute(cfg)
    run_dir = Path(ranks.on_rank_zero(lambda: str(cfg.paths.run_dir)))  # its name may hold a clock, and clocks differ
    if str(run_dir) != str(cfg.paths.run_dir):
        OmegaConf.update(cfg, "paths.run_dir", str(run_dir))
    settings = settings_of(RunSettings, cfg)
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    keys = [from_hydra(override).lstrip("+~").partition("=")[0] for override in overrides]
    for key, why in without_effect(settings, keys).items():
        log.info("%s has no effect: %s", key, why)
    return ranks.on_rank_zero(lambda: _begin(settings, run_dir))


def without_effect(run: RunSettings, keys: Sequence[str]) -> dict[str, str]:
    """Those of the command's keys that a run does not use, and why not."""
    why: dict[str, str] = {}
    if not run.pipeline.trains_classifier:
        why |= dict.fromkeys(("classifier", "augment"), f"pipeline={run.pipeline.name} trains no classifier")
    if not run.pipeline.needs_autoencoder:
        why["model"] = f"pipeline={run.pipeline.name} has no autoencoder"
    if run.data.root is not None:
        why |= dict.fromkeys(OF_DEMO, "the faces come from data.root")
    parts = {key: key if key in why else key.partition(".")[0] for key in keys if "." in key}
    return {key: why[part] for key, part in parts.items() if part in why}


def _begin(settings: RunSettings, run_dir: Path) -> RunSettings:
    """Write a new run down; a job that SLURM has requeued resumes the run that it began."""
    for begun in earlier_runs(run_dir):
        if (begun / CONFIG_FILE).is_file() and read_run(str(begun)).repeats(settings):
            if begun != run_dir:
                give_up()
            return _read_trusted(begun, settings.trusted)
    refuse_unreadable(to_mapping(settings), "", settings.trusted, RUN_SOURCES)
    with processes.block_signals():
        write_down(settings, run_dir)
    if Claiming.claim is not None:
        Claiming.claim.began = True
    record_job(run_dir)
    return settings


def _resumed(cfg: DictConfig, place: str) -> RunSettings:
    overrides = {override: override.partition("=")[0] for override in map(from_hydra, HydraConfig.get().overrides.task)}
    ignored = [override for override, key in overrides.items() if key not in {"resume", "trust", *PLACES}]
    if place and sweeps.is_sweep(Path(place)):
        raise UsageError(f"{place} is a sweep: resume it with {sweeps.to_go_on(Path(place))}")
    if place and runs_under(Path(place)):
        place = str(run_at(Path(place)))
    if not place or not (Path(place) / CONFIG_FILE).is_file():  # Hydra has made the folder by now
        raise UsageError(f"resume={place}: there is no run in such a folder; name one that train.py wrote")
    if ignored:
        raise UsageError(
            f"resume takes the run's own config: leave out {' '.join(ignored)}; "
            f"only where things are may change ({', '.join(PLACES)})"
        )
    make_paths_absolute(cfg)
    trust = OmegaConf.to_container(cfg)["trust"]  # type: ignore[call-overload, index]
    if not isinstance(trust, list):
        raise UsageError(f"trust={trust!r:.100} must be a list: 'trust=[{trust!s:.100}]'")
    run = _read_trusted(Path(place), trust_names(trust))
    moved = {key: str(OmegaConf.select(cfg, key)) for key in PLACES if key in overrides.values()}
    return replace(ranks.on_rank_zero(lambda: give_places(place, moved)), trust=run.trust) if moved else run


def _read_trusted(run_dir: Path, trust: tuple[str, ...]) -> RunSettings:
    """The settings of a run from its own config.yaml; an UntrustedError if that names code that is not trusted."""
    run = read_run(str(run_dir))
    refuse_untrusted_run(read_plain(run_dir / CONFIG_FILE), run_dir / CONFIG_FILE, trust)
    return replace(run, trust=trust)
