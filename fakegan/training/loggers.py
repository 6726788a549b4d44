"""conf/logger: loggers are made here, and given scalars, pictures, histograms, codes and hyperparameters.

TensorBoard and CSV have a folder for each stage. W&B and MLflow have one run for a whole run of ours, with the stage
before each name; its id is kept, so that every stage, and a resumed run, continues it. Lightning's loggers have no
common methods beyond scalars: each gets pictures and the like by the method that it has, or not at all.
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
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger

from fakegan.config.building import HYDRA_KEYS, TARGET, Node, build, takes
from fakegan.config.options import FOLLOWING
from fakegan.config.typed import flat, to_mapping, unknown
from fakegan.data.sheets import Picture
from fakegan.errors import FakeganError, UsageError, one_line
from fakegan.runs.folder import IDS_FILE, MLFLOW_FILE
from fakegan.runs.settings import RunSettings
from fakegan.system import ranks
from fakegan.system.files import replacing

log = logging.getLogger(__name__)
Plain = bool | int | float | str
End = Literal["FINISHED", "FAILED", "KILLED"]  # MLflow's words
_EXTRAS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}  # a logger, and the package that it needs
_QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_DISABLE_TELEMETRY": "true"}
_SQLITE = "sqlite:///"


def check_loggers(settings: RunSettings) -> None:
    """Raise a UsageError for a node that is no logger, or whose library is not installed; nothing is begun."""
    for name, node in _nodes(settings).items():
        package = _EXTRAS.get(str(node[TARGET]).rpartition(".")[2])
        if package is not None and importlib.util.find_spec(package) is None:
            raise UsageError(f"logger.{name} needs {package}: pip install -e '.[{package}]'")
        if not _has_one_run(node):
            logger = _built(settings, name, settings.paths.run_dir / "none")
            if isinstance(logger, TensorBoardLogger):
                _check_tensorboard(node, f"logger.{name}")


def _check_tensorboard(node: Node, at: str) -> None:
    """Raise a UsageError for an option of neither Lightning's TensorBoardLogger nor the writer that gets the others."""
    from torch.utils.tensorboard import SummaryWriter

    handed_on = set(inspect.signature(SummaryWriter).parameters) - {"log_dir"}  # which the logger gives itself
    own = set(inspect.signature(TensorBoardLogger).parameters) - {"kwargs", *FOLLOWING["logger"]}
    for key in node.keys() - HYDRA_KEYS - handed_on:
        if not takes(node, key):
            raise unknown(f"{at}.{key}", node[key], [f"{at}.{name}" for name in own | handed_on])


def loggers(
    settings: RunSettings,
    folder: Path,  # the stage's
    prefix: str = "",  # of names, where a logger has one run for all stages
) -> list[Logger]:
    """The loggers of a stage: on rank 0 the config's; other ranks have as many loggers that write nothing."""
    if not ranks.is_rank_zero():
        return [DummyLogger() for _ in _nodes(settings)]
    return [_built(settings, name, folder, prefix) for name in _nodes(settings)]


@contextlib.contextmanager
def stage_loggers(settings: RunSettings, folder: Path) -> Iterator[list[Logger]]:
    """The loggers, for a stage that trains nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's, that the stage's folder is not empty
        found = loggers(settings, folder)
        yield found
        for logger in found:
            logger.finalize("success")


@contextlib.contextmanager
def logger_runs(settings: RunSettings) -> Iterator[None]:
    """Within: the runs at W&B and MLflow are begun or resumed; they end as the block ends.

    Raises a FakeganError where a logger cannot begin, or fails later.
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
            why = one_line(error, 500)
            raise FakeganError(f"a logger failed: {why}; the training is saved: resume the run") from error
        raise
    finally:
        if ranks.is_rank_zero():
            _end(settings, end)


def hyperparameters(settings: RunSettings) -> dict[str, Plain]:
    """The choices of a run that may have an effect: plain values by full key, no paths, nothing of the loggers."""
    values = to_mapping(settings)
    pipeline = settings.pipeline
    used = {"model": pipeline.needs_autoencoder, "classifier": pipeline.trains_classifier}
    budgets = {values[group]["budget"] for group, is_used in used.items() if is_used}
    used["augment"] = pipeline.trains_classifier
    left_out = ["paths", "logger", "resume", "trust", "test", *(group for group in used if not used[group])]
    values["budget"] = {k: v for k, v in values["budget"].items() if not isinstance(v, dict) or k in budgets}
    values["callbacks"] = settings.callbacks_that_count(stops_early=not settings.classifier.adversarial)
    del values["data"]["root"]
    if pipeline.seen is None:
        del values["detector"]
    chosen = flat({group: value for group, value in values.items() if group not in left_out})
    plain = {key: value if isinstance(value, Plain) else str(value) for key, value in chosen if value is not None}
    options = {key: value for key, value in plain.items() if key.rpartition(".")[2] not in HYDRA_KEYS - {TARGET}}
    return {key: value for key, value in options.items() if not str(value).startswith((os.sep, "~"))}


def log_picture(logger: Logger, name: str, picture: Picture, step: int) -> None:
    """Log a picture, wherever the logger keeps pictures."""
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_image"):  # TensorBoard's
        experiment.add_image(name, picture, step, dataformats="HWC")
    elif hasattr(logger, "log_image"):  # W&B's, and of loggers like it
        logger.log_image(name, [picture], step=step)
    elif hasattr(experiment, "log_image"):  # MLflow's, which does not know the logger's prefix
        prefix = getattr(logger, "_prefix", "")
        experiment.log_image(logger.version, picture, key=f"{prefix}/{name}" if prefix else name, step=step)


def log_histogram(logger: Logger, name: str, values: npt.NDArray[Any]) -> None:
    """Log how some numbers (N,) are distributed."""
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_histogram"):
        experiment.add_histogram(name, values, 0)
    elif type(experiment).__module__.startswith("wandb."):
        import wandb

        held: Any = wandb.Histogram(values.tolist())
        logger.log_metrics({name: held}, 0)


def log_codes(
    logger: Logger,
    name: str,
    codes: npt.NDArray[np.float32],  # (N, K)
    texts: Mapping[str, Sequence[str]],  # columns of N texts
    faces: npt.NDArray[np.uint8],  # (N, size, size, 3)
) -> None:
    """Log codes in TensorBoard's projector, each with its texts and its face."""
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_embedding"):
        lines = [list(line) for line in zip(*texts.values(), strict=True)]
        images = torch.from_numpy(faces).permute(0, 3, 1, 2) / 255
        experiment.add_embedding(codes, lines, images, tag=name, metadata_header=list(texts))


def log_results(logger: Logger, chosen: Mapping[str, Plain], finals: Mapping[str, float]) -> None:
    """Log hyperparameters and final metrics; in one call where the logger shows both, as TensorBoard's HPARAMS do."""
    log_choices: Any = logger.log_hyperparams
    if "metrics" in inspect.signature(log_choices).parameters:
        log_choices(dict(chosen), dict(finals), 0)
    else:
        log_choices(dict(chosen))
        logger.log_metrics(dict(finals), 0)


def _nodes(settings: RunSettings) -> dict[str, Node]:
    """The loggers of the config, by name; a UsageError for a node that does not name its class."""
    found = {name: node for name, node in (settings.logger or {}).items() if node is not None}
    for name, node in found.items():
        if not isinstance(node, dict) or not isinstance(node.get(TARGET), str):
            raise UsageError(
                f"logger.{name} must name what it builds: logger.{name}.{TARGET}=package.module.Class, or null for none"
            )
    return found


def _has_one_run(node: Node) -> bool:
    """Whether a logger has one run for all stages, which it finds again by its id."""
    return takes(node, "id") or takes(node, "run_id")


def _built(settings: RunSettings, name: str, folder: Path, prefix: str = "") -> Logger:
    """A logger; its options that the config leaves out follow from the run and the stage's folder."""
    node, run_dir = _nodes(settings)[name], settings.paths.run_dir
    offered = {"folder": folder, "stage": folder.name, "save_dir": str(run_dir)}
    if _has_one_run(node):
        known = _ids(run_dir).get(name)
        offered |= {"name": run_dir.name, "run_name": run_dir.name, "id": known, "run_id": known, "prefix": prefix}
        offered |= _mlflow_store(node, run_dir)
    else:
        offered |= {"name": folder.name, "version": ""}
        log_file = folder / "metrics.csv"
        if str(node[TARGET]).endswith("CSVLogger") and log_file.is_file():  # an earlier start's: Lightning deletes it
            kept = (log_file.with_stem(f"metrics_{i}") for i in itertools.count(1))
            log_file.rename(next(path for path in kept if not path.exists()))
    given = {key: value for key, value in offered.items() if node.get(key) is None and takes(node, key)}
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)  # it reports that it makes a new file
    options = {key: value for key, value in node.items() if key not in given}
    logger: Logger = build(options, f"logger.{name}", Logger, **given)  # type: ignore[type-abstract]
    if _has_one_run(node):
        logger.LOGGER_JOIN_CHAR = "/"  # type: ignore[attr-defined]  # between prefix and name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's, that W&B's run is there already
            experiment: Any = getattr(logger, "experiment", None)
        if hasattr(experiment, "update_run"):  # MLflow's, for which a run is finished with each training
            experiment.update_run(logger.version, status="RUNNING")
    return logger


def _mlflow_store(node: Node, run_dir: Path) -> dict[str, str]:
    """Where MLflow keeps its runs if the user names no place: in a file beside the run folders, pictures beside it."""
    beside = f"{_SQLITE}{(run_dir.parent / MLFLOW_FILE).absolute()}"
    uri = str(node.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or beside)
    here = {"artifact_location": str(Path(uri.removeprefix(_SQLITE)).absolute().with_suffix(""))}
    return {"tracking_uri": uri, **(here if uri.startswith(_SQLITE) else {})}


def _begin(settings: RunSettings) -> None:
    """Begin, or resume, the run of each logger that has one for all stages, and keep its id."""
    run_dir = settings.paths.run_dir
    for name, node in _nodes(settings).items():
        if not _has_one_run(node):
            continue
        uri, ids = _mlflow_store(node, run_dir)["tracking_uri"], _ids(run_dir)
        lock: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if takes(node, "tracking_uri") and uri.startswith(_SQLITE):  # jobs of a sweep share the file and experiment
            lock = filelock.FileLock(f"{uri.removeprefix(_SQLITE)}.lock")
        try:
            with lock:
                logger = _built(settings, name, run_dir)
            logger.log_hyperparams(hyperparameters(settings))
        except FakeganError:
            raise
        except TypeError as error:  # W&B's init, whose options are not Lightning's
            raise UsageError(f"logger.{name}: {one_line(error, 500)}") from error
        except Exception as error:  # a library's: no account, no server
            hint = f"; {run_dir / IDS_FILE} names the run there: remove it for a new one" if name in ids else ""
            raise FakeganError(f"logger.{name}: {one_line(error, 500)}{hint}") from error
        with replacing(run_dir / IDS_FILE) as building:
            building.write_text(json.dumps({**ids, name: str(logger.version)}, indent=1) + "\n", encoding="utf-8")


def _end(settings: RunSettings, end: End) -> None:
    """End the runs at W&B and MLflow; a logger that fails now only warns: it must not hide how the run ended."""
    for name, node in _nodes(settings).items():
        if not _has_one_run(node):
            continue
        try:
            logger = _built(settings, name, settings.paths.run_dir)
            experiment: Any = getattr(logger, "experiment", None)
            if hasattr(experiment, "set_terminated"):  # MLflow's
                experiment.set_terminated(logger.version, end)
            elif hasattr(experiment, "finish"):  # W&B's
                experiment.finish(int(end != "FINISHED"))
        except Exception as error:
            log.warning("logger.%s has not ended its run: %s", name, one_line(error, 500))


def _ids(run_dir: Path) -> dict[str, str]:
    """The id by which each logger knows the run; none where the file is missing or holds anything else."""
    try:
        values = json.loads((run_dir / IDS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    texts = values if isinstance(values, dict) else {}
    return {k: v for k, v in texts.items() if isinstance(v, str) and re.fullmatch(r"[\w-]{1,64}", v)}
