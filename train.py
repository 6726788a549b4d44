"""One run of the study: train what the pipeline needs, test it, print where the numbers are.

python train.py model=autogan4 pipeline=recon_classify
"""

from omegaconf import DictConfig

from fakegan import config


@config.entry_point("train")
def main(cfg: DictConfig) -> float:
    """Compose, write down what will run, run the stages, return the selection score."""
    from fakegan.pipeline.settings import RunSettings
    from fakegan.pipeline.stages import run

    settings = config.start_run(RunSettings, cfg)
    outcome = run(settings)
    print(outcome.text)
    return outcome.objective


if __name__ == "__main__":
    main()
