"""One run of the study: train what the pipeline needs, test it, say where the numbers are.

python train.py model=autogan4 pipeline=recon_classify    # on the built-in faces
python train.py data=faces data.root=data/faces           # on your own (python -m fakegan.prepare)
python train.py -m seed=1,2,3 classifier=simple_cnn,alexnet    # a sweep: every combination, and a report
python train.py resume=outputs/RUN                        # go on with a run that was stopped
"""

from fakegan import signals

signals.begin()  # before what takes long to load

from fakegan import slurm

slurm.requeue_when_told()  # as early

from omegaconf import DictConfig

from fakegan.cli.entry import entry_point
from fakegan.cli.start import start_run


@entry_point("train", sweeps=True)
def main(cfg: DictConfig) -> float:
    """Compose, write down what will run, run the stages, return the selection score."""
    settings = start_run(cfg)
    from fakegan.pipeline.stages import run

    outcome = run(settings)
    if outcome.text:
        print(outcome.text)
    return outcome.objective


if __name__ == "__main__":
    main()
