"""Config node to typed settings, and one sentence for whatever is wrong with it; with fakegan/sweep, all of Hydra."""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import re
import shutil
import signal
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import hydra
import yaml  # type: ignore[import-untyped]  # OmegaConf's own reader
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fakegan import processes
from fakegan.errors import FakeganError, ToldError, UsageError
from fakegan.pipeline.ledger import COMMAND_VARIABLE
from fakegan.progress import STATUS_FILE
from fakegan.sweep import words

PROJECT = Path(__file__).resolve().parent.parent
CONF = PROJECT / "conf"
CONFIG_FILE = "config.yaml"  # in a run directory, resolved
_MAX_CONFIG_BYTES = 100_000  # train.py writes some 1,500
_MAX_CONFIG_DEPTH = 10  # train.py's is 3
T = TypeVar("T")


class Run(Protocol):
    """Settings of a run that can be held against another's."""

    def repeats(self, other: Any) -> bool:
        """Whether both would end with the same numbers."""

    def processes(self) -> int:
        """How many it starts."""


R = TypeVar("R", bound=Run)


class Sweeps(Protocol):
    """A command's sweeps: fakegan.sweep.launcher is one."""

    def register(self) -> None:
        """Make Hydra know how their jobs are launched."""

    def conclude(self) -> None:
        """At the end, where this was a sweep: say what became of its jobs; raise a FakeganError where one failed."""

    def stopped(self) -> None:
        """Where this was a sweep that was asked to stop: say how to go on."""


def register_resolvers() -> None:
    """`${project:data}`: a path in the project folder; `${run_dir:RESUME,NEW}`: the run to continue, or a new one."""
    OmegaConf.register_new_resolver("project", lambda name: str(PROJECT / name), replace=True)
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
            os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors reach us instead of Hydra's own printing
            register_resolvers()
            if "-m" in sys.argv[2:]:  # Hydra's parser takes it before the words only
                sys.argv.remove("-m")
                sys.argv.insert(1, "-m")
            processes.end_with_parent()
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, processes.terminate)
            if sweeps is not None:
                sweeps.register()
            composed = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)
            with one_sentence():
                run = composed(functools.wraps(task)(functools.partial(_job, task)))
                return run() if sweeps is None else _concluded(run, sweeps)

        return command

    return decorate


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
        if isinstance(stop, KeyboardInterrupt) or stop.code == 128 + signal.SIGTERM:
            sweeps.stopped()
        raise
    sweeps.conclude()
    return result


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
    """Run the task; one refused before it did anything leaves no folder, one that is stopped says how to go on."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    of_another = os.environ.get("RANK", "0") != "0"  # it is the first process that keeps the folder tidy
    made_for_this = not of_another and not any(run_dir.iterdir()) and not run_dir.samefile(Path.cwd())
    try:
        return task(cfg)
    except FakeganError as error:
        if made_for_this and _holds_nothing(run_dir, refused=error.exit_code == UsageError.exit_code):
            shutil.rmtree(run_dir, ignore_errors=True)
        raise
    except (KeyboardInterrupt, SystemExit) as stop:
        requeued = isinstance(stop, SystemExit) and stop.code == processes.REQUEUED
        told = requeued or processes.is_child() or _sweeping()  # by the one that started it, or at the sweep's end
        if (run_dir / CONFIG_FILE).is_file() and not told:
            how = f"python train.py resume={os.path.relpath(run_dir)}"
            print(f"\nstopped; go on with: {how}", file=sys.stderr, flush=True)
        raise


def _holds_nothing(run_dir: Path, refused: bool) -> bool:
    """Whether a run has come to nothing: no network was saved, or not even a stage begun."""
    if refused:
        return not any(path.suffix in {".ckpt", ".pt"} for path in run_dir.rglob("*"))
    return all(
        path.name in {CONFIG_FILE, STATUS_FILE} or path.suffix in {".lock", ".log"} for path in run_dir.glob("*")
    )


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
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(code)


def explain(error: Exception) -> str:
    """One sentence for a Hydra or OmegaConf error, with the nearest names where one is unknown."""
    text = str(error)
    if isinstance(error, MissingConfigException) and "launcher/submitit_" in (error.missing_cfg_file or ""):
        return "a launcher for clusters needs submitit: pip install 'fakegan[slurm]'"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={choice} does not exist: {_nearest(choice, error.options)}"
    if isinstance(error, MissingMandatoryValue):
        missing = re.search(r"(?:full_key|key|value): ?([\w.]+)", text)
        return f"{missing.group(1) if missing else text.splitlines()[0]} must be given"
    unknown = re.search(r"(?:Key '(\w+)' is not in struct|Could not override '([\w./@]+)')", text)
    if isinstance(error, ConfigCompositionException) and unknown:
        full = re.search(r"Could not override '([\w./@]+)'", text)
        key = full.group(1) if full else unknown.group(1)
        return f"{key} is not a config key: {_nearest(key, _known_keys())}"
    return " ".join(line.strip() for line in text.splitlines()[:2])


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    leaf = name.rsplit(".", 1)[-1]
    close += [key for key in known if key.rsplit(".", 1)[-1] == leaf and key not in close][:2]
    return f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(sorted(known)[:20])}"


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
    plain = OmegaConf.to_container(cfg, resolve=True)
    return from_mapping(kind, typing.cast("Mapping[str, Any]", plain))


def start_run(kind: type[R], cfg: DictConfig) -> R:
    """The settings of a run, written down as config.yaml before it runs; with `resume`, those of the run it names.

    In a sweep, a job that would repeat another gets that one's settings.

    Raises:
        UsageError: the run directory is another run's.
    """
    from fakegan import ranks  # imports torch, which --help does not need

    ranks.connect()
    if isinstance(cfg.get("resume"), str):
        return _resumed(kind, cfg.resume)
    if cfg.get("resume") and not _sweeping():
        raise UsageError("resume=true is for sweeps, with -m and hydra.sweep.dir=DIR; go on with a run by resume=DIR")
    make_lasting(cfg)
    run_dir = Path(ranks.on_first(lambda: str(cfg.paths.run_dir)))  # a clock is in its name, and clocks differ
    if str(run_dir) != str(cfg.paths.run_dir):
        with contextlib.suppress(OSError):
            Path(cfg.paths.run_dir).rmdir()  # Hydra made it
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
        twin = _twin(kind, checked, run_dir)
        if twin is not None:
            return twin
    if "SLURM_RESTART_COUNT" in os.environ and (run_dir / CONFIG_FILE).is_file():
        begun = read_run(kind, str(run_dir))
        if begun.repeats(checked):  # the job was put into the queue again, with the same words
            return begun
    write_down(cfg, run_dir)
    return checked


def _sweeping() -> bool:
    return HydraConfig.initialized() and bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _resumed(kind: type[R], place: str) -> R:
    ignored = [word for word in HydraConfig.get().overrides.task if not word.startswith("resume=")]
    if place and words.is_sweep(Path(place)):
        raise UsageError(f"{place} is a sweep: go on with {words.to_go_on(Path(place))}")
    if not place or not (Path(place) / CONFIG_FILE).is_file():  # Hydra has made the folder by now
        raise UsageError(f"resume={place}: there is no run in such a folder; name one that train.py wrote")
    if ignored:
        raise UsageError(f"resume goes on with the run's own config: leave out {' '.join(ignored)}")
    return read_run(kind, place)


def make_lasting(cfg: DictConfig) -> None:
    """Make a composed config one to keep: it means the same in another folder, and when it is read to go on."""
    if cfg.get("resume"):  # true, in a sweep
        cfg.resume = None
    for key in ("data.root", "model.checkpoint", "paths.run_dir", "paths.data_dir", "paths.artifact_dir"):
        path = OmegaConf.select(cfg, key)  # None where it is missing, too
        if path is not None:
            OmegaConf.update(cfg, key, str(Path(path).absolute()))


def write_down(cfg: DictConfig, run_dir: Path) -> None:
    """Write a run's config.yaml, resolved.

    Raises:
        UsageError: another run is there.
        FakeganError: the folder cannot be written.
    """
    building = run_dir / f".{CONFIG_FILE}.{os.getpid()}"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        try:
            building.write_text(OmegaConf.to_yaml(cfg, resolve=True), encoding="utf-8")
            _rename_new(building, run_dir / CONFIG_FILE)
        finally:
            building.unlink(missing_ok=True)
    except FileExistsError:
        raise UsageError(
            f"{run_dir} holds a run already: choose another hydra.run.dir, or continue it with resume={run_dir}"
        ) from None
    except OSError as error:
        raise FakeganError(f"{run_dir} cannot be written ({error}): choose another hydra.run.dir") from error


def _rename_new(path: Path, target: Path) -> None:
    """Rename a file; a FileExistsError where there is one of that name, be it since a moment ago."""
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if target.exists():
            raise FileExistsError(target) from None
        path.rename(target)


def _twin(kind: type[R], checked: R, run_dir: Path) -> R | None:
    """The run of the sweep that would end with this job's numbers: its own, begun by an earlier sweep, or another's."""
    number = HydraConfig.get().job.num
    for sibling in _runs_under(run_dir.parent):
        other = read_run(kind, str(sibling))
        if not other.repeats(checked):
            continue
        if sibling == run_dir:
            print(f"job {number} goes on with {sibling.name}", flush=True)
        else:
            print(f"job {number} is the same run as {sibling.name}", flush=True)
            with contextlib.suppress(OSError):  # not empty: something else is there
                run_dir.rmdir()  # Hydra made it
        return other
    return None


def read_run(kind: type[T], run_dir: str) -> T:
    """The settings that a run was started with, its paths.run_dir where it stands now.

    A run may come from elsewhere: its config is held against the settings' keys, types and names, nothing in it is
    resolved, and no object is made of it but the settings.

    Raises:
        FakeganError: no run there, or a config.yaml that is damaged or not of train.py's making.
    """
    path = Path(run_dir) / CONFIG_FILE
    if not path.is_file():
        raise UsageError(f"{run_dir} is not a run: it has no {CONFIG_FILE}; name a directory that train.py wrote")
    values = _read_plain(path)
    if isinstance(values.get("paths"), dict):
        values["paths"]["run_dir"] = run_dir
    try:
        return from_mapping(kind, values)
    except (UsageError, OverflowError) as error:
        raise UsageError(f"{path}: {error!s:.300}; it may be of another version of FakeGAN") from error


def _read_plain(path: Path) -> dict[str, Any]:
    """The values of a config.yaml as they stand there, texts, numbers, lists and groups of keys."""
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
        raise FakeganError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(values, dict):
        raise FakeganError(f"{path} is damaged: it is no list of keys")
    return typing.cast("dict[str, Any]", values)


def _refuse_foreign(path: Path, text: str) -> None:
    """Raise a FakeganError for YAML that train.py never writes: it may ask for code, for secrets or for all memory."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        found = "too many brackets" if depth > _MAX_CONFIG_DEPTH else _foreign(event)
        if found is not None:
            line = event.start_mark.line + 1
            raise FakeganError(f"{path} has {found} in line {line}, which train.py never writes: do not trust this run")


def _foreign(event: yaml.Event) -> str | None:
    value = getattr(event, "value", "")
    if getattr(event, "tag", None) is not None:
        return "a tag"
    if getattr(event, "anchor", None) is not None:  # an alias's, too: a few lines of them are a million values
        return "an alias"
    if "${" in value:
        return "an interpolation"
    return "a control character" if re.search(r"[\x00-\x1f\x7f-\x9f]", value) else None


def read_runs(kind: type[T], places: Sequence[str]) -> list[T]:
    """The settings of several runs: run directories, or folders that hold some at any depth.

    Raises:
        UsageError: none named, or no run in a place.
    """
    if not places:
        raise UsageError("name a run with run=DIR, or several with 'runs=[DIR,DIR]'")
    found: dict[Path, T] = {}
    for place in places:
        runs = _runs_under(Path(place))
        if not runs:
            raise UsageError(f"there is no run at {place}: name directories that train.py wrote, or a folder of them")
        found |= {run.resolve(): read_run(kind, str(run)) for run in runs}
    return list(found.values())


def _runs_under(folder: Path) -> list[Path]:
    """The folder itself where it is a run, else the runs in it, by name."""
    if (folder / CONFIG_FILE).is_file():
        return [folder]

    def order(path: Path) -> tuple[str | int, ...]:  # 10_x after 9_x
        return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", str(path)))  # type: ignore[misc]

    return sorted((path.parent for path in folder.rglob(CONFIG_FILE)), key=order)


def from_mapping(kind: type[T], values: Mapping[str, Any], at: str = "") -> T:
    """A frozen dataclass from plain values; keys and types are checked, nested dataclasses are built."""
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UsageError(f"{at}{key} is not a config key: {_nearest(str(key), known)}")
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    for key in needed:
        if key not in values:
            raise UsageError(f"{at}{key} is missing from the config")
    typed = {key: _typed(hints[key], value, f"{at}{key}") for key, value in values.items()}
    try:
        return kind(**typed)
    except UsageError as error:  # a value out of range; settings that stand in two places do not know where
        place = at.rstrip(".")
        raise error if not place or place.split(".")[0] in str(error) else UsageError(f"{place}: {error}") from None


def _typed(hint: Any, value: Any, at: str) -> Any:
    """`value` as the type `hint` asks for; a UsageError names the key where it is not."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        options = tuple(a for a in arguments if a is not types.NoneType)
        if value is None and len(options) < len(arguments):
            return None
        if len(options) == 1:
            return _typed(options[0], value, at)
        return value if isinstance(value, options) else _wrong(at, value, " or ".join(o.__name__ for o in options))
    if origin is typing.Literal:
        return value if value in arguments else _wrong(at, value, " or ".join(map(str, arguments)))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return _wrong(at, value, f"a list: '{at}=[...]'")
        return tuple(_typed(arguments[0], item, f"{at}[{i}]") for i, item in enumerate(value))
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            return _wrong(at, value, "a group of keys")
        return from_mapping(typing.cast("type[Any]", hint), value, f"{at}.")
    if origin is dict:
        return dict(value) if isinstance(value, Mapping) else _wrong(at, value, "a group of keys")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    exact = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    return (
        value
        if exact
        else _wrong(at, value, {int: "a whole number", float: "a number", str: "text", Path: "a path"}.get(hint, hint))
    )


def _wrong(at: str, value: Any, wanted: Any) -> typing.NoReturn:
    raise UsageError(f"{at}={value!r} must be {wanted}")
