"""The name of every file in a run's folder and in a sweep's, stated here alone."""

from __future__ import annotations

from pathlib import Path

# A run's folder.
CONFIG_FILE = "config.yaml"  # the settings of the run, resolved
STATUS_FILE = "status.json"  # the stage and epoch that the run has reached
LOCK_FILE = "run.lock"  # locked by the command that works on the run
FACES_FILE = "faces.sha256"  # the fingerprint of the store that the run began with; runs/began.py
JOB_FILE = "slurm_job.txt"  # the SLURM job that began the run
LEDGER_FILE = "test_ledger.csv"  # every use of test faces
IDS_FILE = "loggers.json"  # the id by which each logger knows the run
AUTOENCODER_FILE = "autoencoder.pt"  # in AUTOENCODER_FOLDER
DETECTOR_FILE = "detector.pt"
GENERATOR_FILE = "generator.pt"  # the generator of an adversarial classifier
METRICS_FILE = "metrics.json"  # written last
SCORES_FILE = "scores.csv"
GROUPS_FILE = "groups.csv"  # beside scores.csv
ROBUSTNESS_FILE = "robustness.json"  # beside metrics.json: the test faces degraded
AUTOENCODER_FOLDER, CLASSIFIER_FOLDER = "autoencoder", "classifier"  # of the two trainings: logs, pictures, checkpoints
CHECKPOINTS = "checkpoints"  # in the folder of a training
BEST, LAST = "best.ckpt", "last.ckpt"  # in CHECKPOINTS
FINISHED = "finished"  # in the folder of a training: the training has ended
ANALYSIS_FOLDER = "analysis"  # of the reconstructions; holds the next three
ANALYSIS_FILE, ERRORS_FILE, CODES_FILE = "analysis.json", "errors.csv", "codes.npy"
TEST_FOLDER, VALIDATION_FOLDER = "test", "validation"  # pictures and loggers' files of the run's end
RECONSTRUCTED_FOLDER = "test_reconstructed"  # test faces against their own reconstructions
EVALUATIONS_FOLDER = "evaluations"  # one folder for each evaluation on other faces

# A folder of several runs, such as a sweep's.
COMMAND_FILE = "command.txt"  # the command of the sweep, without resume and folder; paths are absolute
JOBS_FILE = "jobs.csv"
LOG_FILE = "log.txt"  # in a job's folder
STUDY_FILE = "study.db"  # in a search's folder: every trial, by Optuna
BEST_FILE = "optimization_results.yaml"
MLFLOW_FILE = "mlflow.db"  # beside the run folders
REPORTS_FOLDER = "reports"  # in the current folder: where evaluate.py writes reports without out=DIR
REPORT_FILE, REPORT_TEXT_FILE = "report.html", "report.md"
PICTURES_FOLDER = "report_pictures"  # beside report.md

# What fakegan.export writes, known by its ending.
PORTABLE, ONNX = ".fakegan", ".onnx"
EXPORTED = (PORTABLE, ONNX)


def is_exported(path: Path) -> bool:
    """Whether a path is a file of that name."""
    return path.suffix.lower() in EXPORTED and path.is_file()
