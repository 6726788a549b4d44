"""The code's own shape: imports flow one way, and one module decides each thing."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fakegan"
# A module may import from its own layer and from those above it in this list.
LAYERS = [
    {"errors", "files", "loading", "signals", "typed", "usage", "verdicts", "words"},
    {"ranks", "processes", "slurm", "progress", "memory", "devices"},
    {"data", "nets", "views", "evaluation"},
    {"pictures", "commands"},
    {"checkpoints", "callbacks", "epochs", "stopping"},
    {"modules"},
    {"detector"},
    {"pipeline"},
    {"config", "folders", "runs", "sweep", "prepare", "predict", "sample"},
]

HYDRAS = {"cluster.py", "config.py", "folders.py", "launcher.py", "lifecycle.py", "search.py"}


def _layer(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_flow_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "fakegan" and len(parts) > 1 and (PACKAGE / parts[1]).with_suffix(".py").exists():
            assert _layer(parts[1]) <= _layer(own), name
        if parts[0] == "fakegan" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
            assert _layer(parts[1]) <= _layer(own), name


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("hydra", HYDRAS | {"grid.py", "plugins.py"}),
        ("omegaconf", HYDRAS | {"runs.py"}),
        ("optuna", {"search.py"}),
        ("submitit", {"cluster.py", "ranks.py"}),
        ("yaml", {"runs.py"}),
        ("simplejpeg", {"damage.py"}),
        ("PIL", {"colour.py", "formats.py", "given.py", "images.py", "demo.py", "portrait.py", "pictures.py"}),
    ],
)
def test_one_owner(library: str, owners: set[str]) -> None:
    users = {p.name for p in FILES if any(name.split(".")[0] == library for name in _imports(p))}
    assert users <= owners


def test_evaluation_knows_numbers_only() -> None:
    for path in (PACKAGE / "evaluation").glob("*.py"):
        assert not {n for n in _imports(path) if n.startswith(("torch", "pytorch_lightning"))}, path


def test_nets_hold_no_training_logic() -> None:
    for path in (PACKAGE / "nets").glob("*.py"):
        assert not {n for n in _imports(path) if n.startswith(("pytorch_lightning", "torch.optim"))}, path


def test_entry_scripts_read_as_a_table_of_contents() -> None:
    for name in ("train.py", "evaluate.py"):
        assert len((PACKAGE.parent / name).read_text().splitlines()) <= 60
