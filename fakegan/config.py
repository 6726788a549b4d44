"""Config node to typed settings, and one sentence for whatever is wrong with it; with fakegan/sweep, all of Hydra."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

import fakegan
from fakegan import places, processes, ranks, reply, signals, slurm, usage
from fakegan.commands import begin, let_go_of_stdout
from fakegan.errors import FakeganError, ToldError, UsageError
from fakegan.folders import Claim, Claiming
from fakegan.pipeline.ledger import COMMAND_VARIABLE
from fakegan.places import CONF, PROJECT
from fakegan.runs import CONFIG_FILE, PLACES, give_places, read_run, read_runs, run_at, runs_under, write_down
from fakegan.sweep import words
from fakegan.typed import from_mapping, nearest
from fakegan.words import as_meant, command, expanded, one_value, unreadable, word

__all__ = [
    "CONF",
    "CONFIG_FILE",
    "PROJECT",
    "FakeganError",
    "alone",
    "entry_point",
    "explain",
    "from_mapping",
    "make_lasting",
    "one_sentence",
    "read_run",
    "read_runs",
    "register_resolvers",
    "settings",
    "start_run",
    "write_down",
]

T = TypeVar("T")


class Run(Protocol):
    """Settings of a run that can be held against another's."""

    def repeats(self, other: Any) -> bool:
        """Whether both would end with the same numbers."""

    def processes(self) -> int:
        """How many it starts."""

    def check_places(self, given: Collection[str]) -> None:
        """Raise a FakeganError where it cannot go on with what lies at these new places of its faces and so on."""


R = TypeVar("R", bound=Run)


class Sweeps(Protocol):
    """A command's sweeps: fakegan.sweep.lifecycle is one."""

    def register(self) -> None:
        """Make Hydra know how their jobs are launched."""

    def conclude(self) -> None:
        """At the end, where this was a sweep: say what became of its jobs; raise a FakeganError where one failed."""

    def stopped(self) -> None:
        """Where this was a sweep that was asked to stop: say how to go on."""


def register_resolvers() -> None:
    """`${project:data}`: a path in the project folder; `${run_dir:RESUME,NEW}`: the run to continue, or a new one."""
    OmegaConf.register_new_resolver("project", lambda name: str(places.own(name)), replace=True)
    OmegaConf.register_new_resolver(
        "run_dir", lambda resume, new: resume if isinstance(resume, str) and resume else str(new), replace=True
    )


def entry_point(
    name: str,
    sweeps: Sweeps | None = None,  # None: it has none of its own kind
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Make a function of conf/NAME.yaml a command: errors become one sentence and an exit code, never a stack trace.

    2 for what the command asks wrongly, 1 for what fails, 130 for Ctrl-C. FAKEGAN_DEBUG=1 shows the trace.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        def command() -> Any:
            begin()
            os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors reach us instead of Hydra's own printing
            register_resolvers()
            if "-m" in sys.argv[2:]:  # Hydra's parser takes it before the words only
                sys.argv.remove("-m")
                sys.argv.insert(1, "-m")
            processes.end_with_parent()
            if sweeps is not None:
                sweeps.register()
            with one_sentence():
                processes.hear_signals()
                sys.argv[1:] = as_meant(sys.argv[1:])
            if "--version" in sys.argv[1:]:
                _say(f"FakeGAN {fakegan.__version__}")
                return None
            if {"--help", "-h"} & set(sys.argv[1:]):
                with one_sentence():
                    _say(_help(name, sys.modules[task.__module__].__doc__ or "", sweeps is not None))
                return None
            composed = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)
            farewell = signals.parting(lambda code: None if sweeps is None else _stopped(sweeps, code))
            with one_sentence(), processes.deaf_afterwards(), farewell:
                run = composed(functools.wraps(task)(functools.partial(_job, task)))
                return run() if sweeps is None else _concluded(run, sweeps)

        return command

    return decorate


def _help(name: str, about: str, sweeps: bool) -> str:
    """The text of --help, by the words beside it; one with several values is left out."""
    typed = [word for word in sys.argv[1:] if ("=" in word.lstrip("-") and not word.startswith("-")) or word[:1] == "~"]
    given = [o.input_line or "" for o in OverridesParser.create().parse_overrides(typed) if not o.is_sweep_override()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, given, return_hydra_config=True)
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    hydras = OmegaConf.to_container(cfg.hydra, resolve=False)
    composed = usage.Composed(
        values={key: known_value(cfg, key) for key, _ in usage.flat(OmegaConf.to_container(own, resolve=False))},
        choices=dict(cfg.hydra.runtime.choices),
        hydras={key: known_value(cfg, key) for key, _ in usage.flat({"hydra": hydras})},
    )
    return usage.usage(about, name, CONF, composed, sweeps)


def known_value(cfg: DictConfig, key: str) -> Any:
    """A value, resolved; that of a key which is only known in a run is empty."""
    try:
        value = OmegaConf.select(cfg, key, throw_on_missing=True)
    except MissingMandatoryValue:
        return "???"
    except (OmegaConfBaseException, ValueError):
        return ""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _say(text: str) -> None:
    """Print it; whoever reads it may close the pipe in its middle."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        let_go_of_stdout()


def _concluded(run: Callable[[], Any], sweeps: Sweeps) -> Any:
    """What `run` returns; a failed job of a sweep does not cost the others their report."""
    try:
        result = run()
    except (FakeganError, HydraException, OmegaConfBaseException) as error:
        try:
            sweeps.conclude()
        except (FakeganError, OSError):
            if isinstance(error, ToldError):
                raise
        raise error
    except (KeyboardInterrupt, SystemExit) as stop:
        _stopped(sweeps, 130 if isinstance(stop, KeyboardInterrupt) else stop.code)
        raise
    sweeps.conclude()
    return result


def _stopped(sweeps: Sweeps, code: object) -> None:
    """A stopped sweep says how to go on."""
    if code in {128 + number for number in processes.STOPPING}:
        sweeps.stopped()


def _job(task: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    """One job of Hydra's. In a sweep a failed job does not stop the others; the sweep's exit code is its own."""
    job = HydraConfig.get()
    if job.mode != RunMode.MULTIRUN:
        with one_sentence():
            return _tidy(task, cfg)
    try:
        with _own_command(job):
            return _tidy(task, cfg)
    except FakeganError as error:
        print(f"job {job.job.num} failed: {error}", file=sys.stderr, flush=True)
        raise ToldError(error.exit_code) from error


@contextlib.contextmanager
def _own_command(job: Any) -> Iterator[None]:
    """What is recorded of this job of a sweep is the command that would run it alone."""
    os.environ[COMMAND_VARIABLE] = alone(job, job.overrides.task)
    try:
        yield
    finally:
        del os.environ[COMMAND_VARIABLE]


def alone(
    sweep: Any,  # Hydra's node of the config
    overrides: Sequence[str],  # of one of its jobs
) -> str:
    """The command that runs a job without its sweep."""
    asked = any(word.startswith("hydra.mode=") for word in sweep.overrides.hydra)  # which -m does
    return words.alone(f"{sweep.job.name}.py", overrides, sweeps_by_itself=not asked)


def _tidy(task: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    """Run the task; one that comes to nothing leaves no folder, one that is stopped says how to go on."""
    if _sweeping():
        run_dir = Path(HydraConfig.get().runtime.output_dir)  # Hydra has made it
        found = frozenset(path.name for path in run_dir.iterdir())
        Claiming.claim = Claim(run_dir, made=not found, found=found)
    try:
        with signals.parting(_part), signals.kept():
            return task(cfg)
    except FakeganError as error:
        _give_up(refused=error.exit_code == UsageError.exit_code)
        raise
    except (KeyboardInterrupt, SystemExit) as stop:
        _part(130 if isinstance(stop, KeyboardInterrupt) else stop.code)
        raise


def _part(code: object) -> None:
    """A run that is stopped says how to go on; one that has not begun leaves no folder."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)  # another one, where SLURM has started its job again
    told = processes.is_child() or _sweeping()  # by who started it, or at a sweep's end
    told |= Claiming.claim is None  # evaluate.py, or another process of the run than the first
    for_good = code in {128 + number for number in processes.STOPPING}  # SLURM itself goes on with what it requeued
    if not (run_dir / CONFIG_FILE).is_file():
        _give_up()
    elif for_good and not told:
        print(f"\nstopped; go on with: {command('train.py', word('resume', run_dir))}", file=sys.stderr, flush=True)


def _give_up(refused: bool = True) -> None:
    """Of the folder that was claimed for a run: what this process has made there goes, if the run is nothing."""
    if Claiming.claim is not None:
        Claiming.claim.give_up(refused)


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


def settings(kind: type[T], cfg: DictConfig) -> T:
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
    return from_mapping(kind, typing.cast("Mapping[str, Any]", plain))


def _chosen(group: str) -> str | None:
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None


def start_run(kind: type[R], cfg: DictConfig) -> R:
    """The settings of a run, written down as config.yaml before it runs; with `resume`, those of the run it names.

    In a sweep, a job that would repeat another gets that one's settings.

    Raises:
        UsageError: the run directory is another run's.
    """
    ranks.connect()
    started = _resumed(kind, cfg, cfg.resume) if isinstance(cfg.get("resume"), str) else _new(kind, cfg)
    reply.give(folder=str(started.paths.run_dir))  # type: ignore[attr-defined]
    return started


def _new(kind: type[R], cfg: DictConfig) -> R:
    if cfg.get("resume") and not _sweeping():
        raise UsageError("resume=true is for sweeps, with -m and hydra.sweep.dir=DIR; go on with a run by resume=DIR")
    make_lasting(cfg)
    run_dir = Path(ranks.on_first(lambda: str(cfg.paths.run_dir)))  # a clock is in its name, and clocks differ
    if str(run_dir) != str(cfg.paths.run_dir):
        OmegaConf.update(cfg, "paths.run_dir", str(run_dir))
    checked = settings(kind, cfg)
    return ranks.on_first(lambda: _begin(kind, cfg, checked, run_dir))


def _begin(kind: type[R], cfg: DictConfig, checked: R, run_dir: Path) -> R:
    if _sweeping() and checked.processes() > 1:
        launcher = f"hydra/launcher={HydraConfig.get().runtime.choices['hydra/launcher']}"
        raise UsageError(
            f"trainer.devices={OmegaConf.select(cfg, 'trainer.devices')} starts processes, and {launcher} is for one: "
            "leave that out, and each job has its own"
        )
    if _sweeping():
        twin = _twin(kind, cfg, checked, run_dir)
        if twin is not None:
            return twin
    for begun in slurm.begun_earlier(run_dir):
        then = read_run(kind, str(begun)) if (begun / CONFIG_FILE).is_file() else None
        if then is not None and then.repeats(checked):  # the job was put into the queue again, with the same words
            if begun != run_dir:
                _give_up()
                _go_on_in(begun)
            return then
    with processes.signals_held():
        write_down(cfg, run_dir)
    if Claiming.claim is not None:
        Claiming.claim.began = True
    slurm.note_job(run_dir)
    return checked


def _go_on_in(run_dir: Path) -> None:
    """What Hydra knows of as this run's folder is another one from now on."""
    if HydraConfig.initialized():
        runtime: Any = HydraConfig.get().runtime
        with read_write(runtime):
            runtime.output_dir = str(run_dir)


def _sweeping() -> bool:
    return HydraConfig.initialized() and bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _resumed(kind: type[R], cfg: DictConfig, place: str) -> R:
    given = {word: word.partition("=")[0] for word in HydraConfig.get().overrides.task}
    ignored = [word for word, key in given.items() if key not in {"resume", *PLACES}]
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
    make_lasting(cfg)
    moved = {key: str(OmegaConf.select(cfg, key)) for key in PLACES if key in given.values()}
    return ranks.on_first(lambda: give_places(kind, place, moved)) if moved else read_run(kind, place)


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


def _twin(kind: type[R], cfg: DictConfig, checked: R, run_dir: Path) -> R | None:
    """The run of the sweep that would end with this job's numbers: its own, begun by an earlier sweep, or another's."""
    number = HydraConfig.get().job.num
    for sibling in runs_under(run_dir.parent):
        other = read_run(kind, str(sibling))
        if not other.repeats(checked):
            continue
        if sibling == run_dir:
            print(f"job {number} goes on with {sibling.name}", flush=True)
            return give_places(kind, str(sibling), root_of(cfg))
        print(f"job {number} is the same run as {sibling.name}", flush=True)
        _give_up()
        return other
    return None
