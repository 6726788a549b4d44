"""conf/logger: what writes down scalars, pictures and hyperparameters.

TensorBoard and CSV have a folder for each stage. W&B and MLflow have one run for a whole run of ours, with the stage
before each name; by its id it is gone on with in every stage and after a resume.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import itertools
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import filelock
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger

from fakegan.config.building import HYDRA_KEYS, TARGET, Node, build, takes
from fakegan.config.options import FOLLOWING
from fakegan.config.typed import flat, to_mapping, unknown
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.folder import IDS_FILE, MLFLOW_FILE
from fakegan.runs.settings import RunSettings
from fakegan.system import ranks
from fakegan.system.files import replacing
from fakegan.training.pictures import End, Plain, run_ends, run_goes_on

_EXTRAS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}  # ours, and the package that they need
_QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_DISABLE_TELEMETRY": "true"}
_SQLITE = "sqlite:///"


def check(settings: RunSettings) -> None:
    """Raise a UsageError for what is no logger, or one whose library is not installed; nothing is begun."""
    for name, node in _nodes(settings).items():
        package = _EXTRAS.get(str(node[TARGET]).rpartition(".")[2])
        if package is not None and importlib.util.find_spec(package) is None:
            raise UsageError(f"logger.{name} needs {package}: pip install -e '.[{package}]'")
        if not _is_of_run(node):
            logger = _built(settings, name, settings.paths.run_dir / "none", "", None)
            if isinstance(logger, TensorBoardLogger):
                _check_board(node, f"logger.{name}")


def _check_board(node: Node, at: str) -> None:
    """Raise a UsageError for an option that neither Lightning's TensorBoardLogger has nor what it is handed to."""
    from torch.utils.tensorboard import SummaryWriter

    handed_on = set(inspect.signature(SummaryWriter).parameters) - {"log_dir"}  # which the logger gives itself
    for key in node.keys() - HYDRA_KEYS - handed_on:
        if not takes(node, key):
            own = set(inspect.signature(TensorBoardLogger).parameters)
            known = (own | handed_on) - {"kwargs", *FOLLOWING["logger"]}  # a run's own folder is filled in
            raise unknown(f"{at}.{key}", node[key], [f"{at}.{option}" for option in known])


def loggers(
    settings: RunSettings,
    folder: Path,  # the stage's
    prefix: str = "",  # of names, where a logger has one run for all stages
) -> list[Logger]:
    """What writes down a stage: in the run's first process; the others have as many that write nothing.

    Raises:
        UsageError: a class that does not exist, or an option that it refuses.
    """
    nodes = _nodes(settings)
    if not ranks.is_rank_zero():
        return [DummyLogger() for _ in nodes]
    ids = _ids(settings.paths.run_dir)
    return [_built(settings, name, folder, prefix, ids.get(name)) for name in nodes]


@contextlib.contextmanager
def in_a_stage(settings: RunSettings, folder: Path) -> Iterator[list[Logger]]:
    """The loggers, for a stage that trains nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's, that the stage's folder is not empty
        found = loggers(settings, folder)
        yield found
        for logger in found:
            logger.finalize("success")


@contextlib.contextmanager
def writing(settings: RunSettings) -> Iterator[None]:
    """Within: the runs at W&B and MLflow are begun, or gone on with; they end as what is within ends.

    Raises:
        FakeganError: a logger cannot begin, or fails later.
    """
    ranks.on_rank_zero(lambda: _begin(settings))
    end: End = "FAILED"
    try:
        yield
        end = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        end = "KILLED"
        raise
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if library in {"mlflow", "sqlalchemy", "wandb", "requests"}:
            raise FakeganError(f"a logger failed: {_words(error)}; what was learnt is saved: resume the run") from error
        raise
    finally:
        if ranks.is_rank_zero():
            _end(settings, end)


def hyperparameters(settings: RunSettings) -> dict[str, Plain]:
    """What was chosen for a run and may have an effect: plain values by full key, no paths, nothing of the loggers."""
    values = to_mapping(settings)
    pipeline = settings.pipeline
    used = {"model": pipeline.needs_autoencoder, "classifier": pipeline.trains_classifier}
    left_out = ["paths", "logger", "resume", "trust", *(group for group, is_used in used.items() if not is_used)]
    budgets = {values[group]["budget"] for group, is_used in used.items() if is_used}
    values["budget"] = {k: v for k, v in values["budget"].items() if not isinstance(v, dict) or k in budgets}
    values["callbacks"] = settings.callbacks_that_count(stops_early=not settings.classifier.adversarial)
    del values["data"]["root"]
    chosen = flat({group: value for group, value in values.items() if group not in left_out})
    found = {key: value if isinstance(value, Plain) else str(value) for key, value in chosen if value is not None}
    no_choice = HYDRA_KEYS - {TARGET}
    return {k: v for k, v in found.items() if not _is_path(v) and k.rpartition(".")[2] not in no_choice}


def _is_path(value: Plain) -> bool:
    return isinstance(value, str) and (os.path.isabs(value) or value.startswith("~"))


def _nodes(settings: RunSettings) -> dict[str, Node]:
    """The loggers of the config, by name.

    Raises:
        UsageError: one that does not say what it is.
    """
    found = {name: node for name, node in (settings.logger or {}).items() if node is not None}
    for name, node in found.items():
        if not isinstance(node, dict) or not isinstance(node.get(TARGET), str):
            raise UsageError(
                f"logger.{name} must name what it builds: logger.{name}.{TARGET}=package.module.Class, or null for none"
            )
    return found


def _is_of_run(node: Node) -> bool:
    """Whether a logger has one run for all stages, which it finds again by its id."""
    return takes(node, "id") or takes(node, "run_id")


def _built(settings: RunSettings, name: str, folder: Path, prefix: str, known: str | None) -> Logger:
    node = _nodes(settings)[name]
    run_dir = settings.paths.run_dir
    offered = {"folder": folder, "stage": folder.name, "save_dir": str(run_dir)}
    if _is_of_run(node):
        offered |= {"name": run_dir.name, "run_name": run_dir.name, "id": known, "run_id": known, "prefix": prefix}
        offered |= _store(node, run_dir)
    else:
        offered |= {"name": folder.name, "version": ""}
        if str(node[TARGET]).endswith("CSVLogger"):
            _set_aside(folder / "metrics.csv")
    given = {key: value for key, value in offered.items() if node.get(key) is None and takes(node, key)}
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)  # it makes what is not there
    logger: Logger = build({k: v for k, v in node.items() if k not in given}, f"logger.{name}", Logger, **given)  # type: ignore[type-abstract]
    if _is_of_run(node):
        logger.LOGGER_JOIN_CHAR = "/"  # type: ignore[attr-defined]  # between prefix and name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's, that W&B's run is there already
            run_goes_on(logger)
    return logger


def _store(node: Node, run_dir: Path) -> dict[str, str]:
    """Where MLflow keeps its runs, if nobody says it: in a file beside the run directories, pictures beside that."""
    beside = f"{_SQLITE}{(run_dir.parent / MLFLOW_FILE).absolute()}"
    uri = str(node.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or beside)
    here = {"artifact_location": str(Path(uri.removeprefix(_SQLITE)).absolute().with_suffix(""))}
    return {"tracking_uri": uri, **(here if uri.startswith(_SQLITE) else {})}


def _alone_at(node: Node, run_dir: Path) -> contextlib.AbstractContextManager[object]:
    """Runs that begin at once, jobs of a sweep, make MLflow's file and experiment one after the other."""
    uri = _store(node, run_dir)["tracking_uri"]
    if not takes(node, "tracking_uri") or not uri.startswith(_SQLITE):
        return contextlib.nullcontext()
    return filelock.FileLock(f"{uri.removeprefix(_SQLITE)}.lock")


def _set_aside(log: Path) -> None:
    """Keep an earlier start's metrics.csv, which Lightning would delete, as metrics_1.csv and so on."""
    if log.is_file():
        number = next(i for i in itertools.count(1) if not log.with_stem(f"metrics_{i}").exists())
        log.rename(log.with_stem(f"metrics_{number}"))


def _of_run(settings: RunSettings) -> list[str]:
    """Names of the loggers that have one run for all stages."""
    return [name for name, node in _nodes(settings).items() if _is_of_run(node)]


def _begin(settings: RunSettings) -> None:
    run_dir = settings.paths.run_dir
    for name in _of_run(settings):
        known = _ids(run_dir).get(name)
        try:
            with _alone_at(_nodes(settings)[name], run_dir):
                logger = _built(settings, name, run_dir, "", known)
            logger.log_hyperparams(hyperparameters(settings))
        except FakeganError:
            raise
        except TypeError as error:  # W&B's init, whose options are not Lightning's
            raise UsageError(f"logger.{name}: {_words(error)}") from error
        except Exception as error:  # a library's: no account, no server
            hint = f"; {run_dir / IDS_FILE} names the run there: remove it for a new one" if known else ""
            raise FakeganError(f"logger.{name}: {_words(error)}{hint}") from error
        _keep(run_dir, name, str(logger.version))


def _end(settings: RunSettings, end: End) -> None:
    """A logger that fails now has nothing left to lose, and must not hide how the run ended: it is said."""
    ids = _ids(settings.paths.run_dir)
    for name in _of_run(settings):
        try:
            run_ends(_built(settings, name, settings.paths.run_dir, "", ids.get(name)), end)
        except Exception as error:
            print(f"logger.{name} has not ended its run: {_words(error)}", file=sys.stderr, flush=True)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _ids(run_dir: Path) -> dict[str, str]:
    """By logger; none where the file is not there or not of our making."""
    try:
        values = json.loads((run_dir / IDS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    texts = values if isinstance(values, dict) else {}
    return {k: v for k, v in texts.items() if isinstance(v, str) and re.fullmatch(r"[\w-]{1,64}", v)}


def _keep(run_dir: Path, name: str, known: str) -> None:
    with replacing(run_dir / IDS_FILE) as building:
        building.write_text(json.dumps({**_ids(run_dir), name: known}, indent=1) + "\n", encoding="utf-8")
