"""One run of the study: train what the pipeline needs, test it, print where the numbers are.

python train.py model=autogan4 pipeline=recon_classify
python train.py -m +experiment=paper_exp1
"""

from omegaconf import DictConfig

from fakegan import config
from fakegan.sweep import launcher


@config.entry_point("train", sweeps=launcher)
def main(cfg: DictConfig) -> float:
    """Compose, write down what will run, run the stages, return the selection score."""
    from fakegan.pipeline.settings import RunSettings
    from fakegan.pipeline.stages import run

    settings = config.start_run(RunSettings, cfg)
    outcome = run(settings)
    if outcome.text:
        print(outcome.text)
    return outcome.objective


if __name__ == "__main__":
    main()
