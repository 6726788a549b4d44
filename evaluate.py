"""Score a finished run without training: on its own test split, on another store, or on chosen sources.

python evaluate.py run=outputs/...
python evaluate.py run=outputs/... data=faces data.root=data/faces
"""

from omegaconf import DictConfig

from fakegan import config


@config.entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Compose, score, print the table by source."""
    from fakegan.pipeline.evaluating import evaluate
    from fakegan.pipeline.settings import EvaluateSettings, RunSettings

    settings = config.settings(EvaluateSettings, cfg)
    trained = config.read_run(RunSettings, settings.run)
    print(evaluate(settings, trained))


if __name__ == "__main__":
    main()
