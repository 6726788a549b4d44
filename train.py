"""One run of the study: train what the pipeline needs, test it, say where the numbers are.

python train.py model=autogan4 pipeline=recon_classify    # on the built-in faces
python train.py data=faces data.root=data/faces           # on your own (python -m fakegan.prepare)
python train.py -m seed=1,2,3 classifier=simple_cnn,alexnet    # a sweep: every combination, and a report
python train.py resume=outputs/RUN                        # go on with a run that was stopped
"""

from fakegan.system import signals

signals.begin()  # before what takes long to load

from fakegan.system import slurm

slurm.requeue_when_told()  # as early

from omegaconf import DictConfig

from fakegan.cli.entry import entry_point
from fakegan.cli.start import start_run


@entry_point("train", sweeps=True)
def main(cfg: DictConfig) -> float:
    """Compose, write down what will run, run the stages, return the selection score."""
    settings = start_run(cfg)

    from fakegan.stages.analyse import analyse
    from fakegan.stages.examples import examples, own_faces
    from fakegan.stages.run import Stages, run
    from fakegan.stages.test import test
    from fakegan.stages.train_autoencoder import train_autoencoder
    from fakegan.stages.train_classifier import train_classifier

    stages = Stages(
        faces=own_faces,  # conf/data: a store of faces, divided into splits
        autoencoder=train_autoencoder,  # conf/model: its networks, by conf/trainer, callbacks and logger
        examples=examples,  # conf/pipeline: what the classifier sees; reconstructions, made by the autoencoder
        classifier=train_classifier,  # conf/classifier: its network, in the same way; then the detector
        analysis=analyse,  # how faces are reconstructed
        test=test,  # the detector on test faces: metrics.json
    )
    outcome = run(settings, stages)
    if outcome.text:
        print(outcome.text)
    return outcome.objective


if __name__ == "__main__":
    main()
