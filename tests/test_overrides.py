"""Overrides as users type them, and as commands print them: both mean the same after a shell and Hydra."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fakegan import prepare
from fakegan.cli import commands
from fakegan.config import overrides
from fakegan.detector import Detector
from fakegan.errors import FakeganError, UsageError
from fakegan.runs import config_file as runs
from fakegan.runs import ledger
from fakegan.stages.run import _closing_words
from fakegan.sweep import command as sweep_words
from fakegan.system import shell
from fakegan.system.places import PROJECT
from tests.conftest import Compose, Finish
from tests.helpers import refusal

NASTY = [
    *("a b", "a=b", "a,b", "[v2]", "it's", 'say "x"', "été (1)", "顔", "~", "~me", "a#b&c", "a;b|c", "$x", "*", "50%"),
    *("2024", "007", "1e3", "1_0", "0x1", ".5", "true", "null", "NaN", "-x", "a{b}", "a:b", " lead", "trail "),
    *("a\\", "a\\ b", "a\\'b", "\\", "'q'", '"q"', "a,'b'", "choice(a)", "plain", "x/y", "."),
]


def _value(word: str) -> Any:
    """What Hydra makes of a word, which must not ask for several jobs."""
    override = OverridesParser.create().parse_override(word)
    assert not override.is_sweep_override()
    return override.value()


def _printed(line: str, key: str) -> str:
    """The value of a key in a printed command, as it arrives after the shell, hydra_argv and Hydra."""
    meant = overrides.hydra_argv(shlex.split(line))
    return str(next(_value(word) for word in meant if overrides.from_hydra(word).startswith(f"{key}=")))


@pytest.mark.parametrize("name", NASTY)
def test_a_printed_word_arrives_as_it_was_meant(name: str) -> None:
    line = shell.command("train.py", shell.as_override("data.root", Path(name)))
    assert Path(_printed(line, "data.root")) == Path(name)
    plain = shlex.split(line)[-1]  # without hydra_argv, too: Hydra's own reading
    assert Path(_value(plain)) == Path(name)
    both = ",".join(shell.quoted(one) for one in (name, "b"))
    assert _value(overrides.hydra_argv([f"sources=[{both}]"])[0]) == [name, "b"]


@pytest.mark.parametrize("name", [*NASTY[:12], "2024", "a\\'b", "x/y", "."])
def test_every_command_that_is_printed_names_its_folder_from_where_the_user_stands(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compose_settings: Compose,
    name: str,
) -> None:
    """Each place that prints one, on a folder of that name, in that folder's parent and in another."""
    folder = tmp_path / "above" / name
    folder.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path / "above")
    sweep_words.keep_command(folder, ["train.py", "-m", "seed=1,2", shell.as_override("data.root", Path(name))])
    settings = compose_settings("pipeline=classify", f"paths.run_dir={shell.quoted(str(folder))}")
    for here in (tmp_path / "above", elsewhere):
        monkeypatch.chdir(here)
        with pytest.raises(FakeganError) as unfinished:
            Detector.load(folder)
        (folder / runs.CONFIG_FILE).touch()
        with pytest.raises(UsageError) as taken:
            runs.write_down(settings, folder)
        (folder / runs.CONFIG_FILE).unlink()
        closing = _closing_words(settings, {"objective": 0.5}).splitlines()
        printed = [
            (str(unfinished.value).partition("resume it with ")[2], "resume"),
            (str(taken.value).partition("resume it with ")[2], "resume"),
            (next(line for line in closing if "use it:" in line).partition("use it:   ")[2], "model.checkpoint"),
            (sweep_words.to_go_on(folder), "hydra.sweep.dir"),
            (sweep_words.to_go_on(folder), "data.root"),
        ]
        for line, key in printed:
            assert (here / _printed(line, key)).samefile(folder), line
            script = Path(shlex.split(line)[1])
            assert (here / script).samefile(PROJECT / "train.py"), line


def test_the_interpreter_is_named_so_that_the_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("with space/bin/python", "other/python"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "with space/bin/python3"))
    for first, called in (("with space/bin", "python"), ("other", "'with space/bin/python'")):
        monkeypatch.setenv("PATH", str(tmp_path / first))
        assert shell.program("python") == called
    monkeypatch.setattr(sys, "executable", str(tmp_path / "with space/bin/python"))
    monkeypatch.setenv("PATH", str(tmp_path / "with space/bin"))
    assert shell.program("python") == "python"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("data.root=2024", "2024"),
        ("data.root=007", "007"),
        ("data.root=1e3", "1e3"),
        ("data.root=true", "true"),
        ("+data.root=1_0", "1_0"),
        ("data.root=null", None),
        ("out=null", None),
        ("hydra.run.dir=null", "null"),
        ("resume=true", True),
        ("resume='true'", "true"),
        ("data.root='null'", "null"),
        ("data.root=~/faces", "/home/me/faces"),
        ("data.root='~/faces'", "/home/me/faces"),
        ("model.checkpoint=~", "/home/me"),
        ("hydra.run.dir=~/r", "/home/me/r"),
        ("hydra.sweep.dir=~/r", "/home/me/r"),
        ("resume=~/r", "/home/me/r"),
        ("run=~/r", "/home/me/r"),
        ("out=~/r", "/home/me/r"),
        ("runs=[~/a, '~/b c']", ["/home/me/a", "/home/me/b c"]),
        ("runs=~/a", ["/home/me/a"]),
        ("runs=a,b", ["a", "b"]),
        ("runs=[a[1],it's]", ["a[1]", "it's"]),
        ("runs=[]", []),
        ("data.root=./~", "./~"),
        ("data.root=été (1) #&=[v2]", "été (1) #&=[v2]"),
        ("data.root=a\\ b", "a b"),
        ("sources=[007,null,1e3]", ["007", "null", "1e3"]),
        ("sources=2024", ["2024"]),
        ("data.split.unseen=[2024]", ["2024"]),
        ("data.split.unseen=gan", ["gan"]),
        ("data.name=2024", "2024"),
        ("seed=007", "007"),  # none of ours: as Hydra reads it
    ],
)
def test_a_path_or_a_name_is_what_was_typed(monkeypatch: pytest.MonkeyPatch, typed: str, read: object) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert _value(overrides.hydra_argv([typed])[0]) == read


def test_several_values_stay_several_where_each_can_be_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert overrides.hydra_argv(["data.root=a b,007,null"]) == ['++data.root="a b","007",null']
    for typed in ("data.root=choice(a,b)", "data.split.unseen=[a],[b]", "data.split.unseen=a,b", "data.root=${x}"):
        assert [overrides.from_hydra(word) for word in overrides.hydra_argv([typed])] == [typed]
    each = overrides.hydra_argv(["data.split.unseen=[],each(fake)"])
    assert each == ["++data.split.unseen=[],['each(fake)']"]  # a text, not a function of Hydra's
    (tmp_path / "a,b").mkdir()
    assert overrides.hydra_argv(["data.root=a,b"]) == ['++data.root="a,b"']


def test_a_list_that_the_shell_has_parted_is_one_again() -> None:
    assert overrides.hydra_argv(["runs=[a,", "b", "c]", "device=cpu"]) == ['runs=[a,"b c"]', "device=cpu"]
    with pytest.raises(UsageError, match=r"runs=\[a, begins a list that does not end"):
        overrides.hydra_argv(["runs=[a,", "b", "device=cpu"])


@pytest.mark.parametrize("value", ["~x", "é", "a (1)", "a#b", "a&b", "x=[y", "it's"])
def test_an_override_that_hydra_cannot_read_is_shown_in_quotes(value: str) -> None:
    sentence = refusal(f"hydra.job.name={value}")
    assert sentence.startswith(f"hydra.job.name={value}: a text with such characters needs quotes: ")
    assert _value(shlex.split(sentence.partition("quotes: ")[2])[0]) == value


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        # what does not exist
        ("logger=[csv,tensorbord]", "logger=tensorbord does not exist: did you mean tensorboard"),
        ("pipeline.view=residuals", "pipeline.view='residuals' does not exist: choose "),
        ("pipeline.view=bad.nope", "pipeline.view=bad.nope cannot be imported"),
        ("modle=autogan4", "modle is not a config key: did you mean model"),
        ("modle.depth=3", "modle.depth is not a config key: did you mean model.net.depth?"),
        ("model.net.dept=3", "model.net.dept is not a config key: did you mean model.net.depth"),
        ("model.depth=2", "did you mean model.net.depth?"),
        ("model.width=2", "did you mean model.net.width or model.discriminator.width?"),
        ("width=8", "did you mean model.net.width or model.discriminator.width or"),
        ("lr=0.1", "lr is not a config key: did you mean model.optimizer.lr or classifier.optimizer.lr?"),
        ("+learning_rate=1", "did you mean model.optimizer.lr or classifier.optimizer.lr?"),
        ("classifier.learning_rate=1", "did you mean classifier.optimizer.lr?"),
        ("classifier.optimzer.lr=1", "did you mean classifier.optimizer.lr?"),
        ("classifier.schedul=null", "classifier.schedul is not a config key: did you mean classifier.schedule"),
        ("classifier.drpout=0.1", "did you mean classifier.net.dropout?"),
        ("classifier.net_options.dropout=.1", "did you mean classifier.net.dropout?"),
        ("batch_size=8", "did you mean budget.autoencoder.batch_size or budget.classifier.batch_size or"),
        ("budget.clasifier.max_epochs=1", "did you mean budget.classifier.max_epochs?"),
        ("data.split.vall=1", "data.split.vall is not a config key: did you mean data.split.val?"),
        ("data=faces data.rooot=x", "data.rooot is not a config key: did you mean data.root?"),
        ("patience=3", "did you mean callbacks.early_stopping.patience?"),
        ("callbacks.patience=3", "did you mean callbacks.early_stopping.patience?"),
        ("callbacks.grid_every=3", "did you mean callbacks.reconstructions.every or callbacks.samples.every?"),
        ("callbacks.save_minutes=3", "did you mean callbacks.save_and_stop.minutes?"),
        ("callbacks.early_stoping=null", "did you mean callbacks.early_stopping?"),
        ("~callbacks.early_stoping", "did you mean callbacks.early_stopping?"),
        ("callbacks.mine.each=3", "A new one names its class: callbacks.mine._target_=package.module.Class"),
        ("trainer.gradient_clip=1", "did you mean trainer.gradient_clip_val?"),
        ("hydra.launcher.job=2", "did you mean hydra.launcher.jobs?"),
        ("+nothing=1", "nothing is not a config key"),
        # what a key cannot have as its value
        ("seed=true", "seed=True must be a whole number"),
        ("seed=-1", "seed=-1 must be 0 or more"),
        ("model.net.depth=deep", "model.net.depth='deep' must be a whole number"),
        ("trainer.max_epochs=many", "trainer.max_epochs='many' must be a whole number"),
        ("model.net.norm=layer", "model.net.norm='layer' must be none or instance or batch"),
        ("pipeline.fakes=none", "pipeline.fakes='none' must be generated or reconstructed"),
        ("data.limit=0", "data.limit=0 must be 1 or more, or null"),
        ("data.split={unseen:[7]}", "data.split.unseen[0]=7 must be text, in quotes"),
        ("budget.classifier=3", "budget.classifier=3 must be a group of keys"),
        ("budget.classifier.max_epochs=0", "budget.classifier.max_epochs=0 must be 1 or more"),
        ("classifier.net.in_channels=4", "in_channels=4 is no choice: pipeline.view=reconstruction has 3 channels"),
        ("classifier.net=vgg", "classifier.net must name what it builds: classifier.net._target_=package"),
        ("classifier/net=alexnet", "name what is to be built with classifier.net._target_=package.module.Class"),
        ("classifier=null", "classifier=null chooses nothing: a run without a classifier is pipeline=autoencoder or"),
        (
            "data=faces data.root=???",
            "data.root must be given: add data.root=... (the folder that python -m",
        ),
        ("data.root=photos", "photos needs data=faces: data=demo draws its own faces"),
        ("data.root=", "an empty path"),
        ("data.root=a\tb", "control character"),
        # what is written in another way
        ("+seed=2", "seed has a value already: leave out the plus: seed=2"),
        ("+classifier=dcgan", "give it once, without a plus: classifier=dcgan"),
        ("experiment=paper_exp1", "experiment is chosen with a plus: +experiment="),
        ("~seed", "~seed removes what every run needs"),
        ("~data.split.val", "it is as its class has it; data.split.val=VALUE changes it"),
        ("seed", "seed: write KEY=VALUE"),
        ("seed=1,2", "seed=1,2: add -m to run each of these values, or write seed=[1,2] for a list"),
        ("seed=1\r", "carriage return"),
        ("dáta=1", "dáta is not a config key"),
        ("data.root=a,b", """write 'data.root="a,b"' for one"""),
        ("data.split.unseen=a,b", "write data.split.unseen=[a,b] for a list"),
        ("model.betas=[0.5", "brackets or quotes do not match"),
        ("hydra.sweeper.params=3", "hydra.sweeper.params is a table"),
        ("hydra.sweeper.params.seed='1,2'", "added with a plus: +hydra.sweeper.params.seed='1,2'"),
        ("run=x data.root=y", "data.root needs a choice of data beside it: add data=faces"),
    ],
)
def test_a_wrong_override_is_one_sentence(monkeypatch: pytest.MonkeyPatch, typed: str, sentence: str) -> None:
    words = typed.split(" ")
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    said = refusal(*words, name="evaluate") if words[0] == "run=x" else refusal(*words, "paths.run_dir=x")
    assert sentence in said
    assert "\n" not in said


def test_a_command_records_paths_that_are_right_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/x/train.py", "data.root=a b", "seed=1", "runs=[x,y]"])
    recorded = shlex.split(ledger.command())
    sweep = OmegaConf.create({"job": {"name": "train"}, "overrides": {"hydra": ["hydra.mode=MULTIRUN"]}})
    assert recorded == ["train.py", f'data.root="{tmp_path}/a b"', "seed=1", f"runs=[{tmp_path}/x,{tmp_path}/y]"]
    assert shlex.split(sweep_words.standalone_command(sweep, ["data.root=a"])) == [
        "train.py",
        f"data.root={tmp_path}/a",
    ]


def test_commands_without_hydra_know_a_home_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    options = prepare._parser().parse_args(["--real", "a=~/x=y", "--out=~/store", "--groups=~/g.csv"])
    assert (options.out, options.groups) == (Path("/home/me/store"), Path("/home/me/g.csv"))
    assert prepare._sources(options)[0].path == Path("/home/me/x=y")
    assert commands.new_path("2024") == Path("2024")
    with pytest.raises(UsageError, match="Windows line ends"):
        prepare._named("a=photos\r", label=0)
    for wrong in ("", "a\rb", "${x}"):
        with pytest.raises(UsageError):
            prepare._parser().parse_args(["--real", "a=b", f"--out={wrong}"])


def test_a_run_ends_with_the_command_that_writes_its_report(finish: Finish, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finish("pipeline=classify")
    monkeypatch.chdir(run.path.parent)
    line = _closing_words(run.settings, {"objective": 0.5, "temperature": 1.0, **run.metrics}).splitlines()[-1]
    assert line.startswith("report:   ")
    assert shlex.split(line)[-1] == f"runs=[{run.path.name}]"
