"""How a run starts: a new one is written down, one that is named is gone on with, one that is repeated is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from fakegan.config.overrides import from_hydra
from fakegan.config.trust import RUN_SOURCES, refuse_foreign_run, refuse_unreadable, trust_names
from fakegan.config.typed import to_mapping
from fakegan.errors import UsageError
from fakegan.runs.claim import Claiming
from fakegan.runs.compose import make_paths_absolute, root_of, settings_of
from fakegan.runs.config_file import PLACES, give_places, read_plain, read_run, run_at, runs_under, write_down
from fakegan.runs.folder import CONFIG_FILE
from fakegan.runs.settings import RunSettings
from fakegan.runs.status import earlier_runs, record_job
from fakegan.sweep import command as words
from fakegan.system import processes, ranks, reply
from fakegan.system.shell import command, trusting, word


class Started:
    """The run that this process has begun, or goes on with."""

    settings: ClassVar[RunSettings | None] = None


def to_go_on(run_dir: Path) -> str:
    """The command that goes on with a run: of this process's own with what it trusts."""
    run = Started.settings
    own = run is not None and run.paths.run_dir.resolve() == run_dir.resolve()
    trusted = run.trusted if run is not None and own else ()
    return command("train.py", word("resume", run_dir), *trusting(trusted))


def start_run(cfg: DictConfig) -> RunSettings:
    """The settings of a run, written down as config.yaml before it runs; with `resume`, those of the run it names.

    In a sweep, a job that would repeat another gets that one's settings.

    Raises:
        UsageError: the run directory is another run's.
        UntrustedError: the config.yaml to go on from names what nobody trusts.
    """
    Started.settings = _started(cfg)
    return Started.settings


def _started(cfg: DictConfig) -> RunSettings:
    ranks.connect()
    run = _resumed(cfg, cfg.resume) if isinstance(cfg.get("resume"), str) else _new(cfg)
    reply.give(folder=str(run.paths.run_dir))
    return run


def _new(cfg: DictConfig) -> RunSettings:
    if cfg.get("resume") and not sweeping():
        raise UsageError("resume=true is for sweeps, with -m and hydra.sweep.dir=DIR; go on with a run by resume=DIR")
    make_paths_absolute(cfg)
    run_dir = Path(ranks.on_rank_zero(lambda: str(cfg.paths.run_dir)))  # a clock is in its name, and clocks differ
    if str(run_dir) != str(cfg.paths.run_dir):
        OmegaConf.update(cfg, "paths.run_dir", str(run_dir))
    checked = settings_of(RunSettings, cfg)
    return ranks.on_rank_zero(lambda: _begin(cfg, checked, run_dir))


def _begin(cfg: DictConfig, checked: RunSettings, run_dir: Path) -> RunSettings:
    if sweeping() and checked.trainer.processes > 1:
        launcher = f"hydra/launcher={HydraConfig.get().runtime.choices['hydra/launcher']}"
        raise UsageError(
            f"trainer.devices={OmegaConf.select(cfg, 'trainer.devices')} starts processes, and {launcher} is for one: "
            "leave that out, and each job has its own"
        )
    if sweeping():
        twin = _twin(cfg, checked, run_dir)
        if twin is not None:
            return twin
    for begun in earlier_runs(run_dir):
        then = read_run(str(begun)) if (begun / CONFIG_FILE).is_file() else None
        if then is not None and then.repeats(checked):  # the job was put into the queue again, with the same words
            then = _trusted(begun, checked.trusted)
            if begun != run_dir:
                give_up()
                _go_on_in(begun)
            return then
    refuse_unreadable(to_mapping(checked), "", checked.trusted, RUN_SOURCES)
    with processes.block_signals():
        write_down(checked, run_dir)
    if Claiming.claim is not None:
        Claiming.claim.began = True
    record_job(run_dir)
    return checked


def _go_on_in(run_dir: Path) -> None:
    """What Hydra knows of as this run's folder is another one from now on."""
    if HydraConfig.initialized():
        runtime: Any = HydraConfig.get().runtime
        with read_write(runtime):
            runtime.output_dir = str(run_dir)


def sweeping() -> bool:
    """Whether this process is runs a sweep, or jobs of one."""
    return HydraConfig.initialized() and bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _resumed(cfg: DictConfig, place: str) -> RunSettings:
    given = {word: word.partition("=")[0] for word in map(from_hydra, HydraConfig.get().overrides.task)}
    ignored = [word for word, key in given.items() if key not in {"resume", "trust", *PLACES}]
    if place and words.is_sweep(Path(place)):
        raise UsageError(f"{place} is a sweep: go on with {words.to_go_on(Path(place))}")
    if place and runs_under(Path(place)):
        place = str(run_at(Path(place)))
    if not place or not (Path(place) / CONFIG_FILE).is_file():  # Hydra has made the folder by now
        raise UsageError(f"resume={place}: there is no run in such a folder; name one that train.py wrote")
    if ignored:
        raise UsageError(
            f"resume goes on with the run's own config: leave out {' '.join(ignored)}; "
            f"only where things are may change ({', '.join(PLACES)})"
        )
    make_paths_absolute(cfg)
    moved = {key: str(OmegaConf.select(cfg, key)) for key in PLACES if key in given.values()}
    run = _trusted(Path(place), _trust_of(cfg))
    return replace(ranks.on_rank_zero(lambda: give_places(place, moved)), trust=run.trust) if moved else run


def _trust_of(cfg: DictConfig) -> tuple[str, ...]:
    given = OmegaConf.to_container(cfg)["trust"]  # type: ignore[call-overload, index]
    if not isinstance(given, list):
        raise UsageError(f"trust={given!r:.100} must be a list: 'trust=[{given!s:.100}]'")
    return trust_names(given)


def _trusted(run_dir: Path, trust: tuple[str, ...]) -> RunSettings:
    """The settings of a run that is to go on by its own config.yaml, which may have come from elsewhere.

    Raises:
        UntrustedError: it names what nobody trusts.
    """
    run = read_run(str(run_dir))
    refuse_foreign_run(read_plain(run_dir / CONFIG_FILE), run_dir / CONFIG_FILE, trust)
    return replace(run, trust=trust)


def _twin(cfg: DictConfig, checked: RunSettings, run_dir: Path) -> RunSettings | None:
    """The run of the sweep that would end with this job's numbers: its own, begun by an earlier sweep, or another's."""
    number = HydraConfig.get().job.num
    for sibling in runs_under(run_dir.parent):
        if not read_run(str(sibling)).repeats(checked):
            continue
        other = _trusted(sibling, checked.trusted)
        if sibling == run_dir:
            print(f"job {number} goes on with {sibling.name}", flush=True)
            return replace(give_places(str(sibling), root_of(cfg)), trust=other.trust)
        print(f"job {number} is the same run as {sibling.name}", flush=True)
        give_up()
        return other
    return None


def give_up(refused: bool = True) -> None:
    """Of the folder that was claimed for a run: what this process has made there goes, if the run is nothing."""
    if Claiming.claim is not None:
        Claiming.claim.give_up(refused)
