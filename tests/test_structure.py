"""The code's own shape: imports flow one way, and one module decides each thing."""

import ast
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from fakegan.runs import folder
from tests.pages import blocks

PACKAGE = Path(__file__).parent.parent / "fakegan"
# A package or loose module imports from the layers above its own in this list only, within functions too: neither from
# those below nor from its neighbours. Modules of one package may import each other. docs/architecture.md draws it.
LAYERS = [
    {"checks", "errors", "labels"},
    {"evaluation", "system", "views"},
    {"config"},
    {"nets", "data"},
    {"judge", "runs"},
    {"detector", "onnx_detector", "training"},
    {"grid", "loading", "onnx_writer", "stages"},
    {"reports"},
    {"sweep"},
    {"cli"},
    {"audit", "export", "predict", "prepare", "sample", "serve"},
]
# What scores, and what reports on scores: nothing of training is loaded for it.
SCORING = ["audit.py", "detector.py", "export.py", "grid.py", "judge.py", "loading.py", "predict.py", "sample.py"]
LIGHTNING = ("pytorch_lightning", "lightning_fabric", "torchmetrics")
PILLOWS = {
    *("colour.py", "demo.py", "file_facts.py", "formats.py", "given.py", "images.py", "portrait.py", "sheets.py"),
    "verdict_sheet.py",
}
HYDRAS = {
    *("building.py", "calling.py", "claim.py", "cluster.py", "compose.py", "entry.py", "launcher.py", "opening.py"),
    *("planning.py", "search.py", "start.py", "study.py"),
}


def _layer(name: str) -> int:
    found = [i for i, layer in enumerate(LAYERS) if name in layer]
    assert len(found) == 1, f"{name} must stand in one of the layers"
    return found[0]


def test_the_page_on_architecture_draws_these_layers() -> None:
    page = PACKAGE.parent / "docs" / "architecture.md"
    assert [set(line.split()) for line in blocks(page, "")[0].splitlines()] == LAYERS


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "__init__.py"]


def _own_modules(path: Path) -> set[str]:
    """FakeGAN's modules that a file imports, anywhere in it, without the package's name: data.store."""
    found = set()
    for name in _imports(path):
        own, *parts = name.split(".")
        while own == "fakegan" and parts and not (PACKAGE.joinpath(*parts)).with_suffix(".py").is_file():
            parts.pop()  # a class, a function
        found |= {".".join(parts)} if parts and own == "fakegan" else set()
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_flow_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    others = {module.split(".")[0] for module in _own_modules(path)} - {own}
    assert not {other for other in others if _layer(other) >= _layer(own)}


def test_scoring_and_reports_load_no_lightning() -> None:
    """Nor do the modules that they import only once they work."""
    paths = [PACKAGE / name for name in SCORING] + [*PACKAGE.glob("reports/*.py"), *PACKAGE.glob("serve/[a-z]*.py")]
    assert len(paths) > 8
    names = ["fakegan." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]
    names += sorted({f"fakegan.{module}" for path in paths for module in _own_modules(path)})
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = [library for library in {LIGHTNING} if library in sys.modules]\n"
        "    if loaded: sys.exit(f'{name} loads {loaded}')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_process_of_a_sweep_loads_no_torch() -> None:
    """It waits for hours, and needs none."""
    code = "import sys, fakegan.cli.entry, fakegan.sweep.study; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=False).returncode == 0


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("hydra", HYDRAS | {"lifecycle.py"}),
        ("omegaconf", HYDRAS | {"config_file.py", "command.py"}),
        ("optuna", {"study.py"}),
        ("submitit", {"cluster.py", "submitted.py", "ranks.py"}),
        ("yaml", {"config_file.py"}),
        ("simplejpeg", {"damage.py"}),
        ("PIL", PILLOWS),
    ],
)
def test_one_owner(library: str, owners: set[str]) -> None:
    users = {p.name for p in FILES if any(name.split(".")[0] == library for name in _imports(p))}
    assert users <= owners


@pytest.mark.parametrize(
    ("package", "foreign"),
    [
        ("evaluation", ("torch", *LIGHTNING)),  # it knows numbers only
        ("data", LIGHTNING),
        ("nets", (*LIGHTNING, "torch.optim")),  # no training logic
    ],
)
def test_what_a_package_knows_nothing_of(package: str, foreign: tuple[str, ...]) -> None:
    for path in (PACKAGE / package).glob("*.py"):
        assert not {name for name in _imports(path) if f"{name}.".startswith(tuple(f"{f}." for f in foreign))}, path


def test_a_file_of_a_runs_folder_is_named_in_one_place() -> None:
    names = {value for value in vars(folder).values() if isinstance(value, str) and Path(value).suffix}
    assert len(names) > 20
    for path in FILES:
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert path.name == "folder.py" or not texts & names, path


def test_no_code_takes_faces_for_64x64() -> None:
    """The store's geometry says their size."""
    for path in FILES:
        if path.name == "portrait.py":  # which has noise of 64 knots a side
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
            numbers = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            assert (64, 64) not in pairwise(numbers), path


def test_train_py_lists_the_stages_of_a_run() -> None:
    def stages(path: Path) -> list[str]:
        lists = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.List | ast.Tuple)]
        names = [[item.id for item in node.elts if isinstance(item, ast.Name)] for node in lists]
        return next(found for found in names if "AUTOENCODER" in found)

    assert stages(PACKAGE.parent / "train.py") == stages(PACKAGE / "stages" / "run.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_entry_scripts_read_as_a_table_of_contents() -> None:
    for name in ("train.py", "evaluate.py"):
        assert len((PACKAGE.parent / name).read_text().splitlines()) <= 60
