"""python -m fakegan.sample: faces by the generator of a DCGAN run, as another source for prepare and evaluate."""

from __future__ import annotations

from fakegan.system import signals

if __name__ == "__main__":
    signals.begin()  # before libraries that take long to load

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tqdm import tqdm

from fakegan.checks import SIZES
from fakegan.cli.commands import Parser, at_least, new_path, path, run
from fakegan.config.trust import trust_names
from fakegan.data.arrays import at_once
from fakegan.data.sheets import write_png
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.config_file import read_run
from fakegan.runs.folder import GENERATOR_FILE
from fakegan.system.files import building_folder, disk_errors, entries
from fakegan.system.log import quiet
from fakegan.system.places import shown
from fakegan.system.shell import as_override, called, command, local_path

if TYPE_CHECKING:  # --help does not wait for torch
    import torch
    from torch import nn

_COMMAND = shown("sample")
_PICTURE_VIEWS = ("pixels", "reconstruction")  # a generator of these views makes faces
_BATCH = 256  # faces of the smallest size at a time, fewer of larger ones


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the samples; returns the exit code: 0, 1 failure, 2 usage, 130 stopped."""
    return run("sample", _sample, arguments, stopped="nothing was written.")


def _sample(given: list[str]) -> int:
    options = _parser().parse_args(given)
    with signals.exit_at_once():  # torch takes long to load, and leaves nothing to be undone
        from fakegan.system.devices import use_device

    size = sample(options.run, options.out, options.count, options.seed, use_device(options.device), options.trust)
    print(f"{options.count:,} faces: {options.out}")
    source = shlex.quote(f"dcgan={local_path(options.out)}")
    alike = "" if size == SIZES[0] else f" --size {size}"
    print(f"Next: {called('prepare')} --fake {source} --real NAME=PATH{alike} --out data/NAME")
    evaluate = command("evaluate.py", "run=ANOTHER_RUN", "data=faces", "data.root=data/NAME")
    print(f"then: {evaluate}   (this one has learnt them as fakes)")
    return 0


def sample(run_dir: Path, out: Path, count: int, seed: int, device: torch.device, trust: Sequence[str] = ()) -> int:
    """Faces of the run's generator as `out`/000000.png and so on; the same seed gives the same bytes on one machine.

    Returns their pixels a side.

    Raises:
        UsageError: no such run, a run whose generator makes no pictures, `out` taken.
        FakeganError: an unfinished run, a damaged file, a full disk.
    """
    import torch

    from fakegan.data.pixels import to_uint8

    out, run_dir = out.resolve(), run_dir.parent if run_dir.is_file() else run_dir
    _refuse_taken(out)
    generator, side = _load_generator(run_dir, trust)
    generator.to(device).eval()
    length = at_once(_BATCH, side)
    noise = torch.Generator().manual_seed(seed)  # the CPU's, so that every device is given the same noise
    with (
        disk_errors(out),
        building_folder(out) as folder,
        torch.inference_mode(),
        tqdm(total=count, disable=quiet() or None, unit="faces") as progress,
    ):
        for start in range(0, count, length):
            size = min(length, count - start)
            faces = to_uint8(generator(torch.randn(size, int(cast(Any, generator).latent), generator=noise).to(device)))
            for number, face in enumerate(faces.cpu().numpy(), start):
                write_png(folder / f"{number:06d}.png", face)
            progress.update(size)
        _refuse_taken(out)  # again: someone else may have written it in the meantime
    return side


def _load_generator(run_dir: Path, trust: Sequence[str]) -> tuple[nn.Module, int]:
    """The generator of a run in eval mode, and its faces' pixels a side.

    It has made a face, so that a wrong file shows before there is a folder.
    """
    import torch

    from fakegan.data.pixels import to_uint8
    from fakegan.detector import trusted_net
    from fakegan.runs.checkpoints import load_checkpoint
    from fakegan.runs.stamp import misfits_as_errors

    path = run_dir / GENERATOR_FILE
    if not path.is_file():
        raise _no_generator(run_dir)
    names = trust_names(trust)
    content = load_checkpoint(path)
    if not {"net", "weights", "view"} <= content.keys():
        raise FakeganError(f"{path} is no generator's file, or damaged: train again")
    if content["view"] not in _PICTURE_VIEWS:
        raise UsageError(
            f"the generator of {run_dir} makes inputs of the view {content['view']!a:.80}, which are no faces: "
            f"sample a run whose view is {' or '.join(_PICTURE_VIEWS)}"
        )
    with misfits_as_errors(path):
        generator: Any = trusted_net(content["net"], content["weights"], "net", lambda net: (1, net.latent), names)  # type: ignore[arg-type, return-value]
        with torch.inference_mode():
            face = generator.eval()(torch.zeros(1, int(generator.latent)))
        if not torch.isfinite(face).all() or to_uint8(face).shape not in [(1, size, size, 3) for size in SIZES]:
            raise ValueError("it makes no faces")
    return generator, len(face[0, 0])


def _no_generator(run_dir: Path) -> FakeganError:
    trained = read_run(str(run_dir))
    if trained.pipeline.view is None:
        return UsageError(f"{run_dir} trained an autoencoder only: only classifier=dcgan has a generator")
    if not trained.classifier.adversarial:
        name = trained.classifier.name
        return UsageError(f"{run_dir} was trained with classifier={name}: only classifier=dcgan has a generator")
    return FakeganError(
        f"{run_dir} holds no trained generator ({GENERATOR_FILE}): it has not finished; "
        f"resume it with {command('train.py', as_override('resume', run_dir))}"
    )


def _refuse_taken(out: Path) -> None:
    free = not out.exists() or (out.is_dir() and not entries(out))
    if not free or out == Path.cwd():
        raise UsageError(f"{out} is there already: choose another --out")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_COMMAND,
        description="Faces by the generator of a run with classifier=dcgan, as PNG files.",
        epilog=f"example:\n  {_COMMAND} --run outputs/RUN --count 1000 --out fakes/dcgan",
    )
    add = parser.add_argument
    add("--run", type=path, required=True, metavar="RUN", help="the folder of a run with classifier=dcgan")
    add("--count", type=at_least(1), required=True, metavar="N", help="how many faces")
    add("--out", type=new_path, required=True, metavar="DIR", help="a new or empty folder")
    add("--seed", type=at_least(0), default=0, metavar="S", help="of the noise (0)")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where the generator runs (auto)")
    add("--trust", action="append", default=[], metavar="NAME", help="a package whose code the run's file may name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
