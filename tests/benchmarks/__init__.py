"""Benchmarks: FakeGAN beside what people commonly write, as ratios measured in one run. Not collected by pytest."""

import os

# Before torch is imported: threads of both sides sleep while they wait for each other. On a machine that others
# use too, threads that spin take the core from the one they wait for; a batch of 8 then cost 40 ms instead of 1. The
# commands leave it to OpenMP, whose threads spin: alone on two cores a simple-CNN step of 54 ms then took 48.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
