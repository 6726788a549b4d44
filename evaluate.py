"""Score finished runs without training: on their own test split, on another store, or on chosen sources.

python evaluate.py run=outputs/RUN
python evaluate.py run=outputs/RUN data=faces data.root=data/faces    # on other faces
python evaluate.py run=detector.fakegan data=faces data.root=data/faces    # a file that fakegan.export wrote
python evaluate.py 'runs=[outputs/a,outputs/b]'    # side by side, with a report; a folder stands for the runs in it
"""

from fakegan.system import signals

signals.begin()  # before the imports that take seconds

from fakegan.system import slurm

slurm.requeue_when_told()  # as early

from pathlib import Path

from omegaconf import DictConfig

from fakegan.cli.entry import entry_point
from fakegan.runs.compose import settings_of
from fakegan.runs.config_file import read_run, read_runs
from fakegan.runs.folder import is_exported
from fakegan.runs.settings import EvaluateSettings


@entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Compose, score one run or compare several, print the table and where the report is."""
    settings = settings_of(EvaluateSettings, cfg)
    runs = read_runs(settings.runs) if settings.run is None else []
    exported = settings.run is not None and is_exported(Path(settings.run))
    one = None if settings.run is None or exported else read_run(settings.run)
    from fakegan.reports.evaluating import compare, evaluate, evaluate_file

    signals.raise_from_now_on()
    if exported:
        print(evaluate_file(settings, Path(str(settings.run))))
    else:
        print(compare(settings, runs) if one is None else evaluate(settings, one))


if __name__ == "__main__":
    main()
