"""The commands train.py and evaluate.py: entry point, start and resume of a run."""
