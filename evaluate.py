"""Score finished runs without training: on their own test split, on another store, or on chosen sources.

python evaluate.py run=outputs/...
python evaluate.py run=outputs/... data=faces data.root=data/faces
python evaluate.py 'runs=[outputs/a,outputs/b]'
"""

from omegaconf import DictConfig

from fakegan import config


@config.entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Compose, score one run or compare several, print the table and where the report is."""
    from fakegan.pipeline.evaluating import compare, evaluate
    from fakegan.pipeline.settings import EvaluateSettings, RunSettings

    settings = config.settings(EvaluateSettings, cfg)
    if settings.run is not None:
        print(evaluate(settings, config.read_run(RunSettings, settings.run)))
    else:
        print(compare(settings, config.read_runs(RunSettings, settings.runs)))


if __name__ == "__main__":
    main()
