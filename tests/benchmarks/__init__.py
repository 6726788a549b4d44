"""Benchmarks: FakeGAN beside what people commonly write, as ratios measured in one run. Not collected by pytest."""
