"""Splits: no group on two sides whatever the store, stable when pictures are added, plain errors."""

import re
import shlex
from dataclasses import fields, replace
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fakegan.data.faces import DataSettings, divided
from fakegan.data.splits import AUTOENCODER, CLASSIFIER, SplitConfig, Splits, split_faces
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import FAKE, REAL

NAMES = tuple(field.name for field in fields(Splits))[:5]


def table(count: int, real: int | None = None) -> tuple[np.ndarray, ...]:
    """`count` faces alone in their groups, the first `real` of them real; sources ffhq and stylegan."""
    real = count // 2 if real is None else real
    labels = np.where(np.arange(count) < real, REAL, FAKE)
    sources = np.where(labels == REAL, "ffhq", "stylegan")
    groups = np.array([f"g{row}" for row in range(count)], dtype=np.str_)
    return labels, sources, groups, np.full(count, "", dtype="<U5")


def rows_of(splits: Splits) -> dict[str, set[int]]:
    return {name: set(getattr(splits, name).tolist()) for name in NAMES}


def test_every_row_has_one_place_and_the_shares_are_about_right():
    columns = table(20_000)
    splits = split_faces(*columns, SplitConfig())
    counts = {name: len(getattr(splits, name)) for name in NAMES}
    assert sum(counts.values()) == 20_000
    assert splits.left_out == {}
    assert counts["test"] == pytest.approx(3_000, rel=0.06)
    assert counts["val"] == pytest.approx(3_000, rel=0.06)
    assert counts["autoencoder_train"] + counts["autoencoder_val"] == pytest.approx(3_500, rel=0.06)
    assert counts["autoencoder_val"] == pytest.approx(3_500 * 0.15 / 0.85, rel=0.12)
    for name in NAMES:
        rows = getattr(splits, name)
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        assert name.startswith("autoencoder") <= (columns[0][rows] == REAL).all()


def test_adding_pictures_moves_none():
    few, many = (split_faces(*table(count, real=count - 500), SplitConfig()) for count in (2_000, 3_000))
    stay = set(range(1_500))  # real in both
    for name in NAMES:
        assert rows_of(few)[name] & stay == rows_of(many)[name] & stay
    assert split_faces(*table(2_000), SplitConfig(seed=1)).test.tolist() != few.test.tolist()


def test_the_hash_is_stable_across_machines_and_versions():
    """Changing the hash, or what a share that is not given means, would move faces of finished experiments."""
    assert SplitConfig().share == 0.5
    splits = split_faces(*table(24), SplitConfig(), needs={})
    assert rows_of(splits) == {
        "autoencoder_train": {0, 2, 3, 4, 6, 9},
        "autoencoder_val": set(),
        "train": {1, 5, 10, 11, 13, 14, 15, 16, 17, 18, 20, 21, 22},
        "val": {8},
        "test": {7, 12, 19, 23},
    }


@pytest.mark.parametrize("share", [None, 0.0, 0.5])
def test_autoencoder_sources_serve_the_autoencoder_only(share):
    labels, sources, groups, kept = table(1_000)
    sources[:300] = "celeba"
    kept[0], kept[1], kept[2] = "train", "val", "test"
    config = SplitConfig(autoencoder_sources=("celeba",), autoencoder_share=share)
    splits = split_faces(labels, sources, groups, kept, config)
    served = set(splits.autoencoder_train.tolist()) | set(splits.autoencoder_val.tolist())
    assert set(range(300)) - {2} <= served
    assert (served == set(range(300)) - {2}) == (share != 0.5)  # alone unless a share is asked for
    assert 1 in splits.autoencoder_val
    assert splits.left_out == {"kept as test, but of a source for the autoencoder only": 1}


def test_a_group_on_two_sides_loses_rows_to_the_later_side():
    labels = np.array([REAL, REAL, FAKE, REAL, FAKE])
    sources = np.array(["a", "a", "b", "a", "b"])
    groups = np.array(["one", "one", "one", "two", "two"])
    kept = np.array(["train", "test", "", "val", "train"])
    splits = split_faces(labels, sources, groups, kept, SplitConfig(autoencoder_share=0), needs={})
    assert splits.test.tolist() == [1, 2]  # the row without a split of its own follows its group
    assert splits.val.tolist() == [3]
    assert splits.left_out == {"its group is in test": 1, "its group is in val": 1}


def test_fakes_of_a_group_that_serves_the_autoencoder_are_left_out():
    """Pairs of a real face and a fake made from it."""
    pairs = np.arange(2_000) // 2
    labels = np.arange(2_000) % 2
    sources = np.where(labels == REAL, "ffhq", "swap")
    groups = np.array([f"g{pair}" for pair in pairs])
    splits = split_faces(labels, sources, groups, np.full(2_000, ""), SplitConfig())
    served = len(splits.autoencoder_train) + len(splits.autoencoder_val)
    assert splits.left_out == {"fake whose group's real faces train the autoencoder": served}
    assert (pairs[splits.train].reshape(-1, 2)[:, 0] == pairs[splits.train].reshape(-1, 2)[:, 1]).all()


@pytest.mark.parametrize("seed", range(60))
def test_no_group_is_ever_on_two_sides(seed):
    """Random stores, random settings, the one promise."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 200))
    labels = rng.integers(0, 2, count)
    sources = np.where(labels == REAL, rng.choice(["r1", "r2", "r3"], count), rng.choice(["f1", "f2"], count))
    groups = np.array([f"g{number}" for number in rng.integers(0, rng.integers(1, 80), count)])
    kept = rng.choice(["", "", "train", "val", "test"], count) if seed % 2 else np.full(count, "")
    present = set(sources.tolist())
    val, test = rng.uniform(0, 0.5, 2) * 0.99
    config = SplitConfig(
        seed=seed,
        val=float(val),
        test=float(test),
        autoencoder_share=rng.choice([None, 0, 0.3, 0.5, 1]),
        unseen=tuple(present & {"f2", "r3"}) if rng.random() < 0.5 else (),
        autoencoder_sources=tuple(present & {"r1"}) if rng.random() < 0.5 else (),
    )
    splits = split_faces(labels, sources, groups, kept, config, needs={})
    groups_of = {name: set(groups[getattr(splits, name)].tolist()) for name in NAMES}
    rows = rows_of(splits)
    if config.share == 0 and not config.autoencoder_sources:  # the autoencoder shares the classifier's real faces
        for name in ("train", "val"):
            assert rows.pop(f"autoencoder_{name}") == {row for row in rows[name] if labels[row] == REAL}
    for one, other in permutations(rows, 2):
        assert not groups_of[one] & groups_of[other]
    assert sum(map(len, rows.values())) + sum(splits.left_out.values()) == count
    for name in NAMES[:2]:
        assert (labels[getattr(splits, name)] == REAL).all()
    assert set(np.flatnonzero(np.isin(sources, config.unseen)).tolist()) <= rows["test"]


def kept(columns, *names, fakes=None):
    """The columns with these splits kept, row after row; other ones for the fakes where given."""
    labels, sources, groups, split = columns
    split = np.array(names)[np.arange(len(labels)) % len(names)]
    if fakes is not None:
        split = np.where(labels == FAKE, np.array(fakes)[np.arange(len(labels)) % len(fakes)], split)
    return labels, sources, groups, split


def with_sources(columns, **counts):
    """The columns with sources of so many faces each, from the first row on."""
    labels, _, *rest = columns
    return labels, np.repeat(list(counts), list(counts.values())), *rest


def followed(advice, columns, config):
    """Columns and config after doing what an error advises."""
    labels, sources, groups, split = columns
    if "without --keep-splits" in advice:
        split = np.full_like(split, "")
    if "prepare it again with" in advice or "prepare more" in advice:
        more = table(4_000)
        columns = labels, sources, np.char.add("own_", groups), split
        labels, sources, groups, split = (np.concatenate([one, two]) for one, two in zip(columns, more, strict=True))
    words = re.search(r"give (.*)", advice)
    for override in OverridesParser.create().parse_overrides(shlex.split(words[1]) if words else []):
        value = override.value()
        value = tuple(value) if isinstance(value, list) else value
        config = replace(config, **{override.key_or_group.removeprefix("data.split."): value})
    return (labels, sources, groups, split), config


ALL_UNSEEN = SplitConfig(unseen=("stylegan",))
FAKES_ONLY_IN_VAL = kept(table(600), "train", "val", "test", fakes=("val",))


@pytest.mark.parametrize(
    ("columns", "config", "lacking", "told"),
    [
        (table(2_000, real=0), SplitConfig(), "the store holds no real faces", "prepare it again with --real"),
        (table(2_000, real=2_000), SplitConfig(), "the store holds no fake faces", "prepare it again with --fake"),
        (table(2_000), SplitConfig(val=0), "autoencoder_val split has no real", "give data.split.val=0.15"),
        (table(2_000), SplitConfig(test=0), "test split has no real", "give data.split.test=0.15"),
        (table(2_000), SplitConfig(val=0, test=0), "val", "give data.split.val=0.15 data.split.test=0.15"),
        (table(2_000), SplitConfig(autoencoder_share=1), "train split has no real", "data.split.autoencoder_share=0.5"),
        (table(2_000), ALL_UNSEEN, "train split has no fake", "give 'data.split.unseen=[]'"),
        (
            with_sources(table(900, real=300), ffhq=300, stylegan=500, **{"star gan": 100}),
            SplitConfig(unseen=("stylegan", "star gan")),
            "train split has no fake",
            "star gan",
        ),
        (
            table(2_000),
            SplitConfig(autoencoder_sources=("ffhq",)),
            "train split has no real",
            "give 'data.split.autoencoder_sources=[]'",
        ),
        (table(12), SplitConfig(val=0.05, test=0.05), "autoencoder_val", "give data.split."),
        (table(3), SplitConfig(), "autoencoder", "prepare more"),
        (table(3), SplitConfig(val=0), "autoencoder", "prepare more and give data.split.val=0.15"),
        (kept(table(900), "val", "test"), SplitConfig(), "train", "without --keep-splits"),
        (FAKES_ONLY_IN_VAL, SplitConfig(), "train split has no fake", "without --keep-splits"),
        (
            FAKES_ONLY_IN_VAL,
            ALL_UNSEEN,
            "train split has no fake",
            "without --keep-splits and give 'data.split.unseen=[]'",
        ),
    ],
)
def test_what_an_empty_split_advises_is_tried(columns, config, lacking, told):
    with pytest.raises(UsageError) as error:
        split_faces(*columns, config)
    before, _, advice = str(error.value).partition(": ")
    assert lacking in before
    assert told in advice
    followed_columns, followed_config = followed(advice, columns, config)
    split_faces(*followed_columns, followed_config)


@pytest.mark.parametrize("seed", range(120))
def test_advice_leads_to_a_split_whatever_the_store(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 60))
    labels, sources, groups, _ = table(count)
    split = rng.choice(["train", "val", "test", ""][: int(rng.integers(1, 5))], count)
    columns = labels, sources, groups, split if seed % 2 else np.full(count, "")
    val, test = rng.choice([0, 0.01, 0.15, 0.4], 2)
    unseen = ("stylegan",) if rng.random() < 0.3 else ()
    config = SplitConfig(val=float(val), test=float(test), autoencoder_share=rng.choice([None, 0, 1]), unseen=unseen)
    try:
        split_faces(*columns, config)
    except UsageError as error:
        columns, config = followed(str(error).partition("store): ")[2], columns, config)
        split_faces(*columns, config)


@pytest.mark.parametrize(
    ("columns", "took"),
    [
        (kept(table(4_000), "train", "test"), {"val": ["real and fake"]}),
        (kept(table(4_000), "train", "val"), {"test": ["real and fake"]}),
        (kept(table(4_000), "train"), {"val": ["real and fake"], "test": ["real and fake"]}),
        (kept(table(4_000), "train", "val", "test", fakes=("train", "test")), {"val": ["fake"]}),
        (kept(table(4_000), "train", "val", "test"), {}),
    ],
)
def test_a_split_that_the_data_came_without_is_taken_from_train_and_said(columns, took):
    labels, _, _, split = columns
    splits = split_faces(*columns, SplitConfig(autoencoder_share=0))
    told = [(name, classes) for name in ("val", "test") for classes in took.get(name, [])]
    assert list(splits.notes) == [
        f"no {name} split came with the {classes} faces: it is taken from train" for name, classes in told
    ]
    for name in ("train", "val", "test"):
        rows = getattr(splits, name)
        for label, class_name in ((REAL, "real"), (FAKE, "fake")):
            came = split[rows][labels[rows] == label]
            taken = name == "train" or any(class_name in classes for classes in took.get(name, []))
            assert set(came.tolist()) == {"train" if taken else name}
            in_train = ((split == "train") & (labels == label)).sum()
            whole = 1 - 0.15 * sum(class_name not in str(took.get(other)) for other in ("val", "test"))
            if taken and name != "train":
                assert len(came) == pytest.approx(in_train * 0.15 / whole, rel=0.15)


def test_what_is_not_learnt_from_is_only_tested():
    columns = with_sources(table(400, real=100), camera=100, gan_a=100, gan_b=100, gan_c=100)
    alone, held_out = (
        rows_of(split_faces(*columns, SplitConfig(**options)))
        for options in ({"learn_from": ("gan_b",)}, {"unseen": ("gan_c", "gan_a")})
    )
    assert alone == held_out
    assert {columns[1][row] for row in alone["train"]} == {"camera", "gan_b"}
    assert rows_of(split_faces(*columns, SplitConfig()))["autoencoder_train"] == alone["autoencoder_train"]


def test_needs_decide_what_may_be_empty():
    real_only = table(500, real=500)
    assert len(split_faces(*real_only, SplitConfig(), needs=AUTOENCODER).autoencoder_train)
    unseen = SplitConfig(unseen=("stylegan",))  # Experiment 2: fakes only in the test
    assert len(split_faces(*table(500), unseen, needs=AUTOENCODER | {"train": (REAL,), "test": (REAL, FAKE)}).test)
    with pytest.raises(FakeganError, match="holds no real faces"):
        split_faces(*table(500, real=0), SplitConfig(), needs=AUTOENCODER)
    no_share = SplitConfig(autoencoder_share=0)
    assert len(split_faces(*table(500), no_share, needs=CLASSIFIER).left_out) == 0


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (SplitConfig(val=-0.1), r"data\.split\.val is -0\.1"),
        (SplitConfig(test=float("nan")), r"data\.split\.test is nan"),
        (SplitConfig(autoencoder_share=1.5), r"data\.split\.autoencoder_share is 1\.5"),
        (SplitConfig(val=0.5, test=0.5), r"data\.split\.val \+ data\.split\.test is 1"),
        (SplitConfig(unseen=("stilgan",)), r"data\.split\.unseen names stilgan.*did you mean stylegan\?"),
        (
            SplitConfig(autoencoder_sources=("stylegan",)),
            "autoencoder_sources names stylegan, which holds fake",
        ),
        (SplitConfig(autoencoder_sources=("ffhq",), unseen=("ffhq",)), "keep one"),
        (SplitConfig(learn_from=("stilgan",)), r"data\.split\.learn_from names stilgan.*did you mean stylegan\?"),
        (SplitConfig(unseen=("each(fake)",)), r"data\.split\.unseen=each\(fake\) makes a sweep .*: add -m"),
        (SplitConfig(learn_from=("ffhq",)), "learn_from names ffhq, which holds real faces"),
        (SplitConfig(learn_from=("stylegan",), unseen=("stylegan",)), r"data\.split\.learn_from: keep one"),
    ],
)
def test_impossible_settings_name_the_key(config, told):
    with pytest.raises(UsageError, match=told):
        split_faces(*table(100), config)


def test_a_limit_keeps_each_source_in_each_split_and_no_group_changes_sides():
    labels, sources, _, split = with_sources(table(180, real=90), camera=90, gan_a=60, gan_b=30)
    groups = np.array([f"{source} {row // 2}" for row, source in enumerate(sources)])
    store = SimpleNamespace(labels=labels, sources=sources, groups=groups, kept_split=split)
    whole, few, many = (divided(store, DataSettings("faces", None, limit=limit), {}) for limit in (None, 4, 1000))
    kept = rows_of(few)
    for name, rows in rows_of(whole).items():
        assert kept[name] <= rows
        assert (np.diff(getattr(few, name)) > 0).all()
        for source in ("camera", "gan_a", "gan_b"):
            there, here = (sum(sources[row] == source for row in side) for side in (rows, kept[name]))
            assert here == min(there, 4)
    left = 180 - sum(map(len, kept.values()))
    assert few.left_out == {"data.limit=4 for each source in each split": left}
    assert rows_of(many) == rows_of(whole)
