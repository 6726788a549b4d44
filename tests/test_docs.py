"""README and docs/: their commands are accepted, their links and names exist, and a reader's first commands run."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

import fakegan
from fakegan import Run, audit, export, predict, prepare, sample
from fakegan.config.overrides import to_hydra
from fakegan.runs import folder as run_folder
from fakegan.runs.compose import register_resolvers, settings_of
from fakegan.runs.settings import EvaluateSettings
from fakegan.serve import __main__ as serve
from fakegan.stages import run as stages
from fakegan.system.places import CONF, PROJECT
from tests.helpers import compose_run, smooth_faces
from tests.pages import blocks, commands

DOCS = PROJECT / "docs"
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
OWN_CODE = DOCS / "extending.md"  # test_extending.py runs it
COMMANDS = sorted({line for page in PAGES if page != OWN_CODE for line in commands(page)})
MODULES = {
    f"fakegan.{module.__name__.split('.')[1]}": module.main
    for module in (audit, export, predict, prepare, sample, serve)
}
OTHERS = {".", "mlflow", "pre-commit"}  # programs that are not ours


def _words(line: str) -> list[str]:
    """A command's words, without environment variables and without the file that its output goes to."""
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    return words[: words.index(">")] if ">" in words else words


def _train(words: list[str]) -> None:
    """Composes the run, or the first run of a sweep."""
    keys = {word.partition("=")[0] for word in words if "=" in word}
    if "resume" in keys and "-m" not in words:  # the config is in the run's folder
        assert keys <= {"resume", "trust", "data.root"}
        return
    words = [word for word in words if word not in {"-m", "--help", "resume=true"}]
    for word in words:
        if word.startswith("classifier.weights_file="):
            Path(word.partition("=")[2]).touch()
    parsed = zip(words, OverridesParser.create().parse_overrides(words), strict=True)
    single = [
        f"{override.key_or_group}={next(override.sweep_string_iterator())}" if override.is_sweep_override() else word
        for word, override in parsed
    ]
    fakegan.compose(*single)
    if "data.root" not in keys and any(key.startswith("trainer.") for key in keys):  # of whose faces the size is known
        stages.try_networks(compose_run("paths.run_dir=run", "+debug=fast", *single))


def _evaluate(words: list[str]) -> None:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", list(map(to_hydra, words)))
    settings_of(EvaluateSettings, cfg, words)


def _module(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Its options are among those that --help lists."""
    name, *arguments = words
    if name == "pytest":
        assert all((PROJECT / word).is_file() for word in arguments if word.endswith(".py"))
        return
    with pytest.raises(SystemExit):
        MODULES[name](["--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert {word.partition("=")[0] for word in arguments if word.startswith("--")} <= known


def _make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def _pip(words: list[str]) -> None:
    extras = re.findall(r"^(\w+) = \[", (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)
    named = re.findall(r"\.\[([\w,]+)\]", " ".join(words))
    assert {extra for group in named for extra in group.split(",")} <= set(extras)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_pages_is_accepted(
    line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = _words(line)
    if words[0] in {"torchrun", "sbatch"}:  # which start train.py with the words behind it
        words = ["python", *shlex.split(" ".join(words).partition(" python ")[2] or line[line.index("train.py") :])]
    match words:
        case ["python", "train.py", *overrides]:
            _train(overrides)
        case ["python", "evaluate.py", *overrides]:
            _evaluate(overrides)
        case ["python", "-m", *others]:
            _module(others, capsys)
        case ["python", "-c", code]:
            ast.parse(code)
        case ["make", *others]:
            _make(others)
        case ["pip", "install", *others]:
            _pip(others)
        case [program, *_]:
            assert program in OTHERS, "a program that this test does not know"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == DOCS], ids=lambda page: page.stem)
def test_a_page_begins_with_a_command(page: Path) -> None:
    _title, _, start, *_ = page.read_text().split("\n", maxsplit=3)
    assert start == "```sh" or (page.stem == "benchmarks" and start.startswith("Written by `make bench`"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_names_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if link.startswith("https://"):
            continue
        target = page.parent / link if link else page
        assert target.exists(), link
        titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not anchor or anchor in anchors, f"{link}#{anchor}"
    for name in re.findall(r"`((?:fakegan|conf|tests|docs|\.ci)/[\w./-]*)`", text):
        assert (PROJECT / name).exists() or "NAME" in name, name
    tests = "".join(path.read_text() for path in (PROJECT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_lines_fit(page: Path) -> None:
    """Rows of tables cannot be broken; README's are short all the same."""
    lines = page.read_text().splitlines()
    if page.stem == "README":
        assert len(lines) <= 150
        assert max(map(len, lines)) <= 120
    elif page.stem != "benchmarks":  # a command writes it
        assert all(len(line) <= 120 for line in lines if not line.lstrip().startswith("|"))


@pytest.mark.parametrize(
    "group", ["pipeline", "model", "classifier", "augment", "budget", "trainer", "logger", "experiment"]
)
def test_every_choice_is_explained(group: str) -> None:
    text = (DOCS / "configuration.md").read_text()
    assert {path.stem for path in (CONF / group).glob("*.yaml")} <= set(re.findall(r"\w+", text))


def test_every_file_of_a_run_or_sweep_is_explained() -> None:
    names = {value for name, value in vars(run_folder).items() if name.endswith("_FILE")}
    assert len(names) > 10
    text = "".join((DOCS / page).read_text() for page in ("runs.md", "sweeps.md", "configuration.md"))
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_every_mistake_of_the_study_has_a_test_of_its_number() -> None:
    section = (DOCS / "study.md").read_text().partition("## Ten mistakes")[2]
    listed = re.findall(r"^\| (\d+) \|", section, re.MULTILINE)
    tests = re.findall(r"^def (test_\w+)", (PROJECT / "tests" / "test_mistakes.py").read_text(), re.MULTILINE)
    assert listed == [str(number) for number in range(1, 11)]
    assert set(listed) <= set(re.findall(r"_(\d+)_", " ".join(tests)))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs a line of a page in a folder with pictures, tiny where it trains."""
    rng = np.random.default_rng(0)
    counts = {"photos/ffhq": 60, "photos/celeba": 40, "fakes/stylegan": 60, "fakes/stylegan3": 20}
    for place, count in {**counts, "photos": 1, "more/photos": 1}.items():
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for i, pixels in enumerate(smooth_faces(count, rng, checkerboard=12.0 * place.startswith("fakes"))):
            Image.fromarray(pixels).save(tmp_path / place / f"{i:03}.png")
    shutil.copy(tmp_path / "photos" / "000.png", tmp_path / "photo.jpg")  # the content decides
    shutil.make_archive(str(tmp_path / "faces"), "zip", tmp_path / "photos" / "celeba")
    monkeypatch.chdir(tmp_path)
    places = f"paths.data_dir={tmp_path} paths.artifact_dir={tmp_path}"

    def run(line: str) -> None:
        _, script, *words = _words(line)
        if script == "-m":
            module, *arguments = words
            assert MODULES[module](arguments) == 0, line
            return
        tiny = shlex.split(f"+debug=fast trainer=cpu {places}") if script == "train.py" and "resume" not in line else []
        command = [sys.executable, str(PROJECT / script), *words, *tiny]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    return run


@pytest.mark.slow
def test_a_readers_first_commands_run(reader: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """README's recipe for unseen generators; what docs/runs.md and docs/predict.md begin with; README's Python."""
    lines = commands(PROJECT / "README.md")
    first = next(i for i, line in enumerate(lines) if "stylegan3" in line)
    for line in lines[first : first + 2]:
        reader(line)
    (run,) = Path("outputs").iterdir()
    assert {"seen", "unseen"} <= json.loads((run / "metrics.json").read_text())["test"].keys()
    for line in [*commands(DOCS / "runs.md")[:3], *commands(DOCS / "predict.md")[:3]]:
        reader(line)
    finished = Run(Path("outputs/first"), {})
    monkeypatch.setattr(fakegan, "train", lambda *words: fakegan.compose(*words) and finished)
    names: dict[str, Any] = {}
    exec(blocks(PROJECT / "README.md", "python")[0], names)
    assert [row.file for row in names["rows"]] == ["photo.jpg"]
