"""Measurements: each module is one command, and writes one file under `benchmarks/results/`."""
