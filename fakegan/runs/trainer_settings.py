"""conf/trainer: Lightning's Trainer, by its own arguments: which of them a run can have, and which change its numbers.

This module imports torch only where it must, so that a wrong setting is refused at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from fakegan.checks import at_least
from fakegan.config.building import TARGET, Node
from fakegan.config.signatures import signature
from fakegan.config.typed import REST
from fakegan.errors import UsageError
from fakegan.system.processes import cores

# Arguments that FakeGAN answers itself: the one value that is what it does anyway, and why there is no other.
_OWN: dict[str, tuple[Any, str]] = {
    "logger": (None, "loggers are a group of their own: logger=csv, or logger=null for none"),
    "callbacks": (None, "callbacks are a group of their own: callbacks.NAME._target_=package.module.Class"),
    "plugins": (None, "a run has its own, which write its checkpoints and know its processes; leave it out"),
    "default_root_dir": (None, "all files of a run are in its folder; give paths.run_dir=DIR"),
    "enable_checkpointing": (True, "a run ends and goes on by its checkpoints; leave it out"),
    "barebones": (False, "a run ends and goes on by its checkpoints and metrics; leave it out"),
    "use_distributed_sampler": (False, "the data modules deal the faces to the processes; leave it out"),
    "sync_batchnorm": (True, "BatchNorm sees the batch of all processes in any case; leave it out"),
    "limit_test_batches": (1.0, "the test scores every face; for a quick try give data.limit=N"),
    "limit_predict_batches": (1.0, "every face is reconstructed; for a quick try give data.limit=N"),
    "model_registry": (None, "a run's networks stay in its folder; leave it out"),
}
_NEUTRAL = {  # arguments that change no number but for rounding, as the kind of device does
    *("benchmark", "detect_anomaly", "deterministic", "inference_mode", "num_nodes", "strategy"),
    *("enable_autolog_hparams", "enable_model_summary", "enable_progress_bar", "log_every_n_steps", "profiler"),
    *("num_sanity_val_steps", "reload_dataloaders_every_n_epochs"),
}
_LEFT_OUT_BY_FAST_DEV_RUN = {
    *("fast_dev_run", "max_steps", "min_epochs", "min_steps", "overfit_batches"),
    *("check_val_every_n_epoch", "val_check_interval", "num_sanity_val_steps"),
}
_STRATEGIES = (None, "auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
_ALIASES = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")
_COUNTS = ("max_steps", "accumulate_grad_batches", "check_val_every_n_epoch", "min_epochs", "min_steps")
_DURATION = re.compile(r"(\d+):(\d\d):(\d\d):(\d\d)")
EVERY = "check_val_every_n_epoch"  # null is not its default: then val_check_interval counts on through the epochs
FEW = 100  # faces of each source in each split that trainer.fast_dev_run takes, or those of a batch


@dataclass(frozen=True)
class TrainerSettings:
    """conf/trainer: Lightning's Trainer. The number of devices changes no result, but for rounding."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"  # auto: a GPU if there is one, else the CPU
    devices: int | str = 1  # processes, each with a GPU or a share of the CPU; auto: one for every GPU
    precision: int | str = "32-true"  # or bf16-mixed, 16-mixed, ...: Lightning's names
    max_epochs: int | None = None  # of each network, in place of the budget's
    cuda_graphs: str | bool = "auto"  # true: each network's kernels are launched as a few graphs, not one by one; auto:
    # for small batches in long trainings on one GPU, where the launches take longer than the arithmetic
    max_time: Any = None  # of each network's training: DD:HH:MM:SS, or {hours: 1, minutes: 30}
    node: Node = field(default_factory=dict, metadata=REST)  # Lightning's other arguments

    def __post_init__(self) -> None:
        object.__setattr__(self, "devices", "auto" if str(self.devices) in {"auto", "-1"} else self.devices)
        object.__setattr__(self, "precision", _ALIASES.get(str(self.precision), self.precision))
        if self.precision not in _PRECISIONS:
            raise UsageError(f"trainer.precision={self.precision} must be one of {', '.join(_PRECISIONS)}")
        if isinstance(self.devices, str) and self.devices != "auto":
            raise UsageError(f"trainer.devices={self.devices!r} must be a number or auto")
        if self.cuda_graphs not in (True, False, "auto"):
            raise UsageError(f"trainer.cuda_graphs={self.cuda_graphs!s:.80} must be auto, true or false")
        counts = {name: self.node.get(name) for name in _COUNTS} | {"max_epochs": self.max_epochs}
        counts["devices"] = None if self.devices == "auto" else self.devices
        if counts["max_steps"] == -1:  # Lightning's word for: as many as there are
            counts["max_steps"] = None
        at_least(1, **{name: count for name, count in counts.items() if count is not None})
        for key, (accepted, why) in _OWN.items():
            if self.node.get(key) not in (None, accepted):
                raise UsageError(f"trainer.{key}={self.node[key]} is not for a run: {why}")
        strategy = self.node.get("strategy")
        if strategy not in _STRATEGIES:
            raise UsageError(
                f"trainer.strategy={strategy!s:.80} is not for a run: its processes share batches, noise and "
                "statistics by ddp; choose trainer=ddp or trainer=ddp_cpu"
            )
        self._refuse_values()

    def _refuse_values(self) -> None:
        """Raise a UsageError for a value of Lightning's arguments that a run cannot have."""
        for name in ("limit_train_batches", "limit_val_batches", "val_check_interval"):
            if self.node.get(name) == 0:
                raise UsageError(f"trainer.{name}=0 must be more: validation chooses the epoch that a run keeps")
        clip = self.node.get("gradient_clip_val")
        if clip is not None and not clip > 0:  # also true for NaN
            raise UsageError(f"trainer.gradient_clip_val={clip} must be above 0; null: gradients are not clipped")
        algorithm = self.node.get("gradient_clip_algorithm")
        if algorithm is not None and (algorithm not in ("norm", "value") or clip is None):
            raise UsageError(
                f"trainer.gradient_clip_algorithm={algorithm!s:.80} must be norm or value, beside a "
                "trainer.gradient_clip_val"
            )
        if self.node.get("deterministic") not in (None, True, False, "warn"):
            raise UsageError(f"trainer.deterministic={self.node['deterministic']!s:.80} must be true, false or warn")
        if self.validates_by_clock and self.devices != 1:
            raise UsageError(
                f"trainer.val_check_interval={self.node['val_check_interval']} is a time, and several processes have no"
                " common clock: give a number of batches, or a share of an epoch"
            )
        if self.quick < 0:
            raise UsageError(f"trainer.fast_dev_run={self.quick} must be true, false or a number of batches")
        if self.seconds is not None and self.seconds <= 0:
            raise UsageError(f"trainer.max_time={self.max_time} must be more than nothing")

    @property
    def quick(self) -> int:
        """Batches of everything, where trainer.fast_dev_run asks for a quick try; else 0."""
        return int(self.node.get("fast_dev_run") or 0)

    @property
    def seconds(self) -> float | None:
        """How long each network may train, where trainer.max_time says it."""
        given = self.max_time
        if given is None or self.quick:
            return None
        match = _DURATION.fullmatch(given) if isinstance(given, str) else None
        units = ("days", "hours", "minutes", "seconds")
        parts: Any = dict(zip(units, map(int, match.groups()), strict=True)) if match else given
        try:
            return timedelta(**parts).total_seconds()
        except (TypeError, OverflowError):
            raise UsageError(
                f"trainer.max_time={given} must be 'DD:HH:MM:SS' or a group such as {{hours: 1, minutes: 30}}"
            ) from None

    @property
    def arguments(self) -> Node:
        """Lightning's other arguments; fast_dev_run is written out, so that checkpoints and loggers are kept."""
        given = {k: v for k, v in self.node.items() if k not in _OWN and (v is not None or k == EVERY)}
        if not self.quick:
            return given
        few = {"limit_train_batches": self.quick, "limit_val_batches": self.quick}
        return {k: v for k, v in given.items() if k not in _LEFT_OUT_BY_FAST_DEV_RUN} | few

    @property
    def validates_by_clock(self) -> bool:
        """Whether validation comes after some time instead of after some batches."""
        return isinstance(self.arguments.get("val_check_interval"), str | dict)

    def epochs(self, budget: int) -> int:
        """The epochs that a network trains at most; `budget` is the number of its budget."""
        return 1 if self.quick else self.max_epochs or budget

    @property
    def numbers(self) -> Node:
        """The arguments that may change a run's numbers; epochs and defaults are left out."""
        target = str(self.node.get(TARGET))
        known = signature(target)
        defaults = {} if known is None else {name: option.default for name, option in known.options.items()}
        defaults |= {"limit_train_batches": 1.0, "limit_val_batches": 1.0, "val_check_interval": 1.0}
        if target.startswith("pytorch_lightning."):
            defaults[TARGET] = target
        numbers: Node = {"precision": self.precision}
        if self.seconds is not None:
            numbers["max_time"] = self.seconds
        for name, value in self.arguments.items():
            default = defaults.get(name)
            same = value == default and isinstance(value, float) == isinstance(default, float)  # 1 batch is not 1.0
            if name not in _NEUTRAL and not same:
                numbers[name] = value
        return numbers

    @property
    def uses_gpus(self) -> bool:
        """Whether each process takes a GPU on this machine."""
        if self.accelerator != "auto":
            return self.accelerator in {"gpu", "cuda"}
        import torch

        return torch.cuda.is_available()

    @property
    def processes(self) -> int:
        """How many processes a run starts on this machine.

        Raises:
            UsageError: more than there are GPUs, or, on the CPU, cores; two are always allowed.
        """
        gpus = 0
        if self.uses_gpus:
            import torch

            gpus = torch.cuda.device_count()
        if isinstance(self.devices, str):
            return max(gpus, 1)
        if self.devices > gpus > 0:
            raise UsageError(f"trainer.devices={self.devices}, but this machine has {gpus} GPUs: lower it")
        if not self.uses_gpus and self.devices > max(cores(), 2):
            raise UsageError(f"trainer.devices={self.devices}, but this machine has {cores()} cores: lower it")
        return self.devices

    def precision_on(self, device: str) -> str:
        """The precision that networks train in on a kind of device: a CPU has no 16-mixed."""
        return "bf16-mixed" if (device, self.precision) == ("cpu", "16-mixed") else str(self.precision)

    def said(self, device: str) -> list[str]:
        """Notes on the arguments, for before anything starts; `device` is the kind of device."""
        lines = []
        if self.quick:
            batches = "one batch" if self.quick == 1 else f"{self.quick} batches"
            lines.append(
                f"trainer.fast_dev_run: every network trains and validates on {batches}, and the other stages take few "
                "faces; no result of it means anything"
            )
        if self.precision_on(device) != self.precision:
            lines.append(f"trainer.precision={self.precision} is not for a CPU: {self.precision_on(device)} is taken")
        if self.seconds is not None:
            lines.append(
                "trainer.max_time: a clock ends each training, so the same words, or going on after a stop, may end "
                "with other numbers"
            )
        if self.validates_by_clock:
            lines.append(
                "trainer.val_check_interval: a clock says when to validate, so the same words, or going on after a "
                "stop, may keep another moment"
            )
        return lines
