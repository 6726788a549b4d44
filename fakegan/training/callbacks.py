"""Callbacks that Lightning lacks: repeatable noise, clipping, checkpoints of a run, a stop on divergence, pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal
from weakref import proxy

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from fakegan.checks import at_least
from fakegan.data.augment import Augment
from fakegan.data.pixels import to_uint8
from fakegan.data.sheets import COPIED, Picture, sheet, write_png
from fakegan.errors import FakeganError
from fakegan.labels import CLASS_NAMES
from fakegan.nets.cpu import lay_out_weights
from fakegan.runs.checkpoints import name_checkpoint
from fakegan.runs.folder import CHECKPOINTS
from fakegan.system import ranks
from fakegan.system.devices import uses_tensor_cores
from fakegan.training.loggers import log_picture
from fakegan.views import residual


class StepSeed(pl.Callback):
    """Every step's noise (dropout, samples, the pool's draws) is a function of (seed, epoch, step), also when resumed.

    `ranks.draw` deals the noise of the whole batch to all processes.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the generators of the CPU and the device in use."""
        key = np.random.SeedSequence((self.seed, trainer.current_epoch, batch_idx))
        number = int(key.generate_state(1, np.uint64)[0] >> np.uint64(1))
        ranks.seed_noise(number, module.device.type)


class ChannelsLast(pl.Callback):
    """Weights whose channels come last, where a GPU's tensor cores take them so; a checkpoint holds them in planes."""

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Before there are optimizers, and buckets of gradients, which are laid out as the weights are."""
        weights = next(module.parameters(), torch.zeros(0))
        with trainer.precision_plugin.forward_context():
            if uses_tensor_cores(trainer.strategy.root_device, weights.dtype):
                lay_out_weights(module)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """What an optimizer took from a checkpoint gets the layout of its weights: fused ones need it."""
        for optimizer in trainer.optimizers:
            for weights, state in optimizer.state.items():
                for name, value in state.items():
                    if (
                        isinstance(value, Tensor)
                        and value.shape == weights.shape
                        and value.stride() != weights.stride()
                    ):
                        state[name] = torch.empty_like(weights, dtype=value.dtype, requires_grad=False).copy_(value)


class ClipGradients(pl.Callback):
    """Before a step of any optimizer: gradients of a norm, or of values, above the limit are scaled to it, or cut.

    Lightning's own clipping does not work for manual optimization, nor for fused optimizers in mixed precision.
    """

    def __init__(
        self,
        limit: float,
        algorithm: Literal["norm", "value"],  # of all gradients of an optimizer together, or of each number
    ) -> None:
        self.limit = limit
        self.clip = clip_grad_value_ if algorithm == "value" else clip_grad_norm_

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Clip; a fused optimizer would undo the scaling of 16-mixed itself, but only later."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)
        self.clip([p for group in optimizer.param_groups for p in group["params"]], self.limit)


class EndAfter(pl.Callback):
    """Ends a fit after a number of optimizer steps, with a validation."""

    def __init__(self, steps: int, of_an_epoch: int) -> None:
        self.steps = steps
        self.of_an_epoch = of_an_epoch

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop where the steps are done."""
        last = batch_idx + 1 >= trainer.num_training_batches
        here = self.of_an_epoch if last else (batch_idx + 1) // trainer.accumulate_grad_batches
        if trainer.current_epoch * self.of_an_epoch + here >= self.steps:
            trainer.should_stop = True


class Patience(EarlyStopping):
    """Stops after so many epochs without a better value; a fit that had stopped so stays stopped when resumed."""

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"],
        patience: int = 10,  # epochs without a better validation AUROC before the classifier stops
    ) -> None:
        at_least(1, patience=patience)
        super().__init__(monitor, mode=mode, patience=patience, check_finite=False)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Lightning keeps its count in the checkpoint, but not its decision."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class Best(ModelCheckpoint):
    """best.ckpt by a validation metric, of equals the latest; a run that was moved finds its own again."""

    def __init__(self, folder: Path, monitor: str, mode: Literal["min", "max"]) -> None:
        super().__init__(folder / CHECKPOINTS, "best", monitor, mode=mode, enable_version_counter=False)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Where a metric is perfect early, later epochs still learn: Lightning would keep the first.

        Rank 0 decides: where ranks differ in a last digit, some would save and wait for the others.
        """
        best = self.best_k_models.get(self.kth_best_model_path)
        if current is None or best is None:
            return super().check_monitor_top_k(trainer, current)
        no_worse = current >= best if self.mode == "max" else current <= best
        return ranks.on_rank_zero(lambda: bool(no_worse))

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the metrics to every checkpoint of a fit, as plain numbers; the learning rate is no metric."""
        metrics = trainer.callback_metrics.items()
        checkpoint["metrics"] = {name: float(value) for name, value in metrics if not name.startswith("lr-")}

    def written_at_end_of_epoch(self, trainer: pl.Trainer) -> Path | None:
        """The file that the end of this epoch has written; None where the best was found by a validation within it.

        A fit's progress and training metrics are others then.
        """
        now = self._last_global_step_saved == trainer.global_step and self._should_save_on_train_epoch_end(trainer)
        return Path(self._last_checkpoint_saved) if now and not self.save_weights_only else None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning forgets the best where the folder's name has changed: name the paths as they are now."""

        def moved(path: str) -> str:
            return str(Path(self.dirpath or "") / Path(path).name) if path else path

        paths = ("best_model_path", "last_model_path", "kth_best_model_path")
        best = {moved(path): value for path, value in state_dict["best_k_models"].items()}
        here = {"dirpath": self.dirpath, "best_k_models": best, **{name: moved(state_dict[name]) for name in paths}}
        super().load_state_dict({**state_dict, **here})


class Last(ModelCheckpoint):
    """last.ckpt after every epoch; Lightning's save_last waits for a better epoch.

    It follows `best` in the trainer. After an epoch that `best` has just written, last.ckpt is the same file under a
    second name: nothing is written twice.
    """

    def __init__(self, folder: Path, best: Best) -> None:
        super().__init__(
            folder / CHECKPOINTS, "last", monitor=None, save_on_train_epoch_end=True, enable_version_counter=False
        )
        self.best = best

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """As Lightning's, but for what is written already."""
        written = self.best.written_at_end_of_epoch(trainer)
        if written is None:
            super()._save_checkpoint(trainer, filepath)
            return
        ranks.on_rank_zero(lambda: name_checkpoint(written, Path(filepath)))
        self._last_global_step_saved, self._last_checkpoint_saved = trainer.global_step, filepath
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.after_save_checkpoint(proxy(self))


class StopOnDivergence(pl.Callback):
    """A mean or a weight that is no longer a number ends the run with a sentence.

    First among the callbacks, so that the others show and save numbers only.
    """

    EVERY = 50  # steps between two looks at the means: a look waits for the device

    def __init__(self, stage: str) -> None:
        self.key = f"{'model' if stage == 'autoencoder' else stage}.optimizer.lr"  # to lower

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Check this process's sums of the epoch so far, where the module keeps `train_means`."""
        means: Any = getattr(module, "train_means", None)
        if (batch_idx + 1) % self.EVERY == 0 and means is not None:
            self._check(trainer, {f"train/{name}": sums for name, sums in zip(means.names, means.totals, strict=True)})

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Check the epoch's metrics and the weights."""
        self._check(trainer, {**trainer.callback_metrics, **dict(module.named_parameters())})

    def _check(self, trainer: pl.Trainer, values: dict[str, Tensor]) -> None:
        wrong = next((name for name, value in values.items() if not torch.isfinite(value).all()), None)
        if ranks.largest(int(wrong is not None)):
            raise FakeganError(
                f"training diverged: {wrong or 'a mean'} is not a number in epoch {trainer.current_epoch + 1}; "
                f"lower {self.key}"
            )


class Sheet(pl.Callback, ABC):
    """A picture every few epochs and at the last epoch, as PNG in `folder` and by the loggers."""

    name: str  # of the files, name_NNN.png, and for the loggers

    def __init__(
        self,
        folder: Path,
        every: int = 5,  # epochs between two pictures
        faces: int = 8,  # in a picture, at most
    ) -> None:
        at_least(1, every=every, faces=faces)
        self.folder = folder
        self.every = every
        self.faces = faces

    @abstractmethod
    def picture(self, module: pl.LightningModule) -> Picture | None:
        """The picture, made with the module in eval mode; None if this module has nothing to show."""

    @torch.no_grad()
    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Draw the picture where it is due."""
        epoch = trainer.current_epoch
        if not trainer.is_global_zero or (epoch % self.every and epoch + 1 != trainer.max_epochs):
            return
        try:
            picture = self.picture(module)
        except ValueError as error:  # to_uint8's
            reason = f"training diverged: {self.name} of epoch {epoch + 1} are no pictures ({error})"
            raise FakeganError(f"{reason}; lower the learning rate") from error
        if picture is not None:
            _show(trainer, self.folder, self.name, picture)


def _show(trainer: pl.Trainer, folder: Path, name: str, picture: Picture) -> None:
    """Write a picture of this epoch as NAME_NNN.png, and give it to the loggers."""
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / f"{name}_{trainer.current_epoch:03d}.png", picture)
    for logger in trainer.loggers:
        log_picture(logger, name, picture, trainer.current_epoch)


class ReconstructionGrid(Sheet):
    """The same validation faces: face, reconstruction and residual, one row each."""

    name = "reconstructions"
    shown: Tensor | None = None  # (F, 3, size, size) in [-1, 1]

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *_: int
    ) -> None:
        """Keep the first faces, where the module learns from faces alone."""
        if self.shown is None and "image" in batch:
            self.shown = batch["image"][: self.faces].clone()

    def picture(self, module: pl.LightningModule) -> Picture | None:
        """Of the faces that were kept."""
        return None if self.shown is None else reconstruction_grid(self.shown, module(self.shown).float())


class GeneratedSamples(Sheet):
    """A generator's samples of the same noise; of a view of more than three channels, the first three."""

    name = "samples"

    def picture(self, module: pl.LightningModule) -> Picture | None:
        """Of `module.samples(count)`, (N, C, size, size) in [-1, 1], where the module has a generator."""
        samples: Any = getattr(module, "samples", None)
        return None if samples is None else sheet([to_uint8(samples(self.faces)[:, :3].float()).cpu().numpy()])


class AugmentedFaces(pl.Callback):
    """The first batch that a classifier learns from, where conf/augment changes it: a row of real faces, one of fakes.

    A mixed face stands in the row of what most of it is; of a view of more than three channels, the first three.
    """

    def __init__(
        self,
        folder: Path,
        faces: int = 8,  # of each class, at most
    ) -> None:
        at_least(1, faces=faces)
        self.folder, self.faces = folder, faces

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Draw those that rank 0 has of the fit's first batch."""
        augment = getattr(getattr(trainer, "datamodule", None), "augment", None)  # of a module of the user's: anything
        first = trainer.is_global_zero and trainer.current_epoch == batch_idx == 0
        if not first or not isinstance(augment, Augment) or not augment.shows:
            return
        faces, label = to_uint8(batch["x"][:, :3].float().clamp(-1, 1)).cpu().numpy(), batch["label"].cpu().numpy()
        rows = [faces[label == kind][: self.faces] for kind in CLASS_NAMES]
        longest = max(map(len, rows))
        filled = [np.pad(row, ((0, longest - len(row)), *[(0, 0)] * 3), constant_values=255) for row in rows]
        _show(trainer, self.folder, "augmented", sheet(filled, names=list(CLASS_NAMES.values())))


def reconstruction_grid(real: Tensor, recon: Tensor) -> Picture:
    """Three rows of faces with their names, uint8 (3 * (size + 2) + 2, 96 + F * (size + 2) + 2, 3).

    From two (F, 3, size, size) in [-1, 1]. The third row is the residual as views show it, four times as large: black
    is a perfect copy.
    """
    rows = [to_uint8(x).cpu().numpy() for x in (real, recon, residual(real, recon))]
    return sheet(rows, names=COPIED)
