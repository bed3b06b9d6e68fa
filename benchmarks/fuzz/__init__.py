"""Coverage-guided fuzzing of the readers of foreign bytes: `python -m benchmarks.fuzz`."""
