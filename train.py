"""One run of the study: train what the pipeline needs, test it, say where the numbers are.

python train.py model=autogan4 pipeline=recon_classify    # on the built-in faces
python train.py data=faces data.root=data/faces           # on your own (python -m fakegan.prepare)
python train.py -m seed=1,2,3 classifier=simple_cnn,alexnet    # a sweep: every combination, and a report
python train.py resume=outputs/RUN                        # resume a run that was stopped
"""

from fakegan.system import signals

signals.begin()  # before the imports that take seconds

from fakegan.system import slurm

slurm.requeue_when_told()  # as early

from omegaconf import DictConfig

from fakegan.cli.entry import entry_point
from fakegan.cli.start import start_run


@entry_point("train", sweeps=True)
def main(cfg: DictConfig) -> float:
    """Compose, write down what will run, run the stages, return the selection score."""
    settings = start_run(cfg)

    from fakegan.stages.analyse import ANALYSIS
    from fakegan.stages.examples import EXAMPLES, own_faces
    from fakegan.stages.run import run
    from fakegan.stages.test import TEST
    from fakegan.stages.train_autoencoder import AUTOENCODER
    from fakegan.stages.train_classifier import CLASSIFIER

    stages = [
        AUTOENCODER,  # conf/model: its networks, by conf/trainer, callbacks and logger
        EXAMPLES,  # conf/pipeline: what the classifier sees; reconstructions, made by the autoencoder
        CLASSIFIER,  # conf/classifier: its network, in the same way; then the detector
        ANALYSIS,  # how faces are reconstructed
        TEST,  # the detector on test faces: metrics.json
    ]
    return run(settings, stages, open_faces=own_faces)  # conf/data: a store of faces, divided into splits


if __name__ == "__main__":
    main()
