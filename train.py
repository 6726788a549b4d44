"""One run of the study: train what the pipeline needs, test it, print where the numbers are.

python train.py model=autogan4 pipeline=recon_classify
python train.py -m +experiment=paper_exp1
"""

from pathlib import Path

from omegaconf import DictConfig

from fakegan import config


def report(sweep_dir: Path) -> None:
    """After a sweep: its finished runs side by side."""
    from fakegan.pipeline.reporting import report_sweep
    from fakegan.pipeline.settings import RunSettings

    print(report_sweep(config.read_runs(RunSettings, [str(sweep_dir)]), sweep_dir))


@config.entry_point("train", after_sweep=report)
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
