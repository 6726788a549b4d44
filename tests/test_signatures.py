"""What the source of a class says of its options, and what a config fills in from there."""

import sys
from pathlib import Path
from typing import Any

import pytest

from fakegan.config.building import build, completed
from fakegan.config.signatures import COMPUTED, REQUIRED, signature
from fakegan.config.typed import checked
from fakegan.errors import UsageError

SOURCE = """
from dataclasses import dataclass
from typing import ClassVar

from torch import nn


class Inner:
    def __init__(self, depth: int = 1):
        self.depth = depth


class Holds(nn.Module):
    def __init__(self, width: int = 8, **options):
        super().__init__()
        self.inner = Inner(**options)


class Passes(Inner):
    def __init__(self, width: int = 8, **options):
        super().__init__(**options)


class Widths:
    def __init__(self, widths: tuple[int, ...] = (8, 16), names=frozenset("a"), kinds={"b"}, last=None):
        self.widths = (3, *widths) + widths


@dataclass
class Base:
    kind: ClassVar[str] = "base"
    a: int


@dataclass
class Above(Base):
    b: float = 0.5
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("signed")
    (folder / "signed_package.py").write_text(SOURCE)
    sys.path.append(str(folder))
    yield "signed_package"
    sys.path.remove(str(folder))


def test_other_options_are_the_base_classs_where_they_are_passed_on(module: str) -> None:
    node = {"_target_": f"{module}.Passes", "depth": 3}
    assert completed(node, "net")["width"] == 8
    with pytest.raises(UsageError, match=r"net\.deep is not a config key"):
        completed({"_target_": f"{module}.Passes", "deep": 3}, "net")


def test_other_options_of_whatever_a_class_holds_are_its_own_affair(module: str) -> None:
    node = completed({"_target_": f"{module}.Holds", "depth": 3}, "net")
    assert build(node, "net", object).inner.depth == 3  # type: ignore[attr-defined]


def test_a_default_that_no_config_holds_stays_the_classs(module: str) -> None:
    """A tuple would come back as a list."""
    node = completed({"_target_": f"{module}.Widths"}, "net")
    assert node == {"_target_": f"{module}.Widths", "last": None}
    assert build(node, "net", object).widths == (3, 8, 16, 8, 16)  # type: ignore[attr-defined]
    stated = signature(f"{module}.Widths")
    assert stated is not None
    assert stated.options["kinds"].default is COMPUTED
    assert stated.options["widths"].default == (8, 16)  # for --help


def test_a_dataclass_has_the_fields_of_those_above_it(module: str) -> None:
    stated = signature(f"{module}.Above")
    assert stated is not None
    assert {name: option.default for name, option in stated.options.items()} == {"a": REQUIRED, "b": 0.5}


@pytest.mark.parametrize(
    ("annotation", "value", "fits"),
    [
        ("float | str", 1, True),
        ("float | str", True, False),
        ("int | str", 1.5, False),
        ("bool | float", 2, True),
        ("tuple[float, ...]", [1, 0.5], True),
        ("Literal['a', 'b'] | None", "c", False),
        ("Strategy | str", 1, True),  # a class that nobody knows here
    ],
)
def test_a_value_is_what_an_annotation_says_as_far_as_it_is_plain(annotation: str, value: object, fits: bool) -> None:
    if fits:
        checked(annotation, value, "net.x")
        return
    with pytest.raises(UsageError, match=r"^net\.x=.* must be "):
        checked(annotation, value, "net.x")
