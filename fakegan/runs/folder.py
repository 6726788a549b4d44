"""The name of every file in a run's folder and in a sweep's; whoever reads or writes one takes its name from here."""

from __future__ import annotations

# A run's folder. One folder a stage, AUTOENCODER and CLASSIFIER, holds the checkpoints of its training.
CONFIG_FILE = "config.yaml"  # what the run was asked, resolved
STATUS_FILE = "status.json"  # where it stands
LOCK_FILE = "run.lock"  # held by the command that works on it
FACES_FILE = "faces.sha256"  # the fingerprint of the store that it began with
LEDGER_FILE = "test_ledger.csv"  # every use of test faces
IDS_FILE = "loggers.json"  # the id by which each logger knows the run
AUTOENCODER_FILE = "autoencoder.pt"
DETECTOR_FILE = "detector.pt"
GENERATOR_FILE = "generator.pt"  # what an adversarial classifier's generator has learnt
METRICS_FILE = "metrics.json"  # written last
SCORES_FILE = "scores.csv"
GROUPS_FILE = "groups.csv"
CHECKPOINTS = "checkpoints"  # in a stage's folder
LAST = "last.ckpt"  # in checkpoints

# A folder of runs: of a sweep, or that which holds several.
COMMAND_FILE = "command.txt"  # what was typed, without resume and folder; paths are absolute
JOBS_FILE = "jobs.csv"
LOG_FILE = "log.txt"  # in a job's folder
STUDY_FILE = "study.db"  # in a search's folder: every trial, by Optuna
BEST_FILE = "optimization_results.yaml"
MLFLOW_FILE = "mlflow.db"  # beside the run folders
REPORT_FILE = "report.html"
PICTURES_FOLDER = "report_pictures"  # beside report.md
