"""FakeGAN as `pip install .` leaves it: the wheel in an environment of its own, used from another folder."""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fakegan
from fakegan.system.shell import as_override
from tests.helpers import smooth_faces

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
COMMANDS = ("train", "evaluate", "prepare", "audit", "predict", "export", "sample", "serve")
TINY = ("+debug=fast", "data.limit=20", "trainer=cpu", "pipeline=classify")
Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network, by what `make install` brings."""
    pytest.importorskip("hatchling", reason="make install brings it")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("fakegan-*.whl"))


@pytest.fixture(scope="module")
def shell(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Runs a line in an environment that has the wheel, and the libraries of this one but not its FakeGAN."""
    place = tmp_path_factory.mktemp("installed") / "an environment"
    venv.create(place, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--ignore-installed", str(wheel)], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def run(line: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(line, shell=True, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def test_the_config_tree_and_the_scripts_are_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"fakegan/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*") if path.is_file()}
    kinds = {".py", ".jinja", ".css", ".txt", ".html", ".js"}
    package = [path for path in (ROOT / "fakegan").rglob("*") if path.suffix in kinds]
    modules = {str(path.relative_to(ROOT)) for path in package}
    assert conf
    wanted = conf | modules | {"fakegan/scripts/train.py", "fakegan/scripts/evaluate.py", "fakegan/py.typed"}
    assert {name for name in names if ".dist-info/" not in name} == wanted


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_its_version_and_how_it_is_called(shell: Shell, name: str, tmp_path: Path) -> None:
    assert shell(f"fakegan-{name} --version", tmp_path).stdout == f"FakeGAN {fakegan.__version__}\n"
    said = " ".join(shell(f"fakegan-{name} --help", tmp_path).stdout.split())
    assert f"fakegan-{name} " in said
    assert not re.search(r"python (train|evaluate)\.py|python -m fakegan|pip install -e", said)
    assert list(tmp_path.iterdir()) == []


def test_the_config_is_that_of_a_checkout_but_for_its_places(shell: Shell, tmp_path: Path) -> None:
    shown = shell("python -c 'import fakegan; print(fakegan.compose())'", tmp_path).stdout
    here = fakegan.compose()
    here.paths.data_dir, here.paths.artifact_dir = str(tmp_path / "data"), str(tmp_path / "artifacts")
    assert shown == f"{here}\n"


def test_a_run_and_what_it_prints_to_be_copied(shell: Shell, tmp_path: Path) -> None:
    """In a folder whose name a shell and Hydra would take apart."""
    name = "a b=[1], it's été"
    train = f"fakegan-train {shlex.join(TINY)} {shlex.quote(as_override('hydra.run.dir', f'./{name}'))}"
    trained = shell(train, tmp_path).stdout
    assert {path.name for path in tmp_path.iterdir()} == {name, "data"}
    again = re.search(r"^again: +(fakegan-evaluate .*)$", trained, re.MULTILINE)
    assert again is not None, trained
    assert "test split" not in shell(again[1], tmp_path).stderr
    taken = shell(train, tmp_path, 2).stderr
    resume = re.search(r"resume it with (fakegan-train .*)$", taken)
    assert resume is not None, taken
    assert "again: " in shell(resume[1], tmp_path).stdout
    Image.fromarray(smooth_faces(1, np.random.default_rng(0))[0]).save(tmp_path / "face.png")
    row = json.loads(shell(f"fakegan-predict --run {shlex.quote(name)} --format json face.png", tmp_path).stdout)[0]
    program = f"import fakegan; print(fakegan.load({name!r}).predict(['face.png'])[0].score)"
    assert shell(f"python -c {shlex.quote(program)}", tmp_path).stdout == f"{row['score']}\n"


def test_processes_that_a_run_starts_find_it(shell: Shell, tmp_path: Path) -> None:
    """A sweep's jobs, two side by side; two processes of one run; one that a program starts."""
    words = shlex.join(TINY)
    sweep = shell(f"fakegan-train -m {words} seed=1,2 hydra.launcher.jobs=2 hydra.sweep.dir=s", tmp_path).stdout
    assert "report: s/report.html" in sweep
    assert (tmp_path / "s" / "command.txt").read_text().startswith("train.py -m")
    again = shell(f"fakegan-train -m {words} seed=1,2 hydra.sweep.dir=s/0_classify_alexnet_s1/..", tmp_path, 2)
    assert "add resume=true" in again.stderr
    shell(f"fakegan-train {words} trainer=ddp_cpu hydra.run.dir=two", tmp_path)
    program = f"import fakegan; print(fakegan.train(*{TINY!r}, 'seed=2').folder)"
    folder = shell(f"python -c {shlex.quote(program)}", tmp_path).stdout.splitlines()[-1]
    assert (tmp_path / folder).parent == tmp_path / "outputs"
