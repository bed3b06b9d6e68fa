"""Does a threshold keep its promise? `python -m benchmarks.calibration DATA`."""
