"""What turns scores into promises: thresholds, and the metrics that check them."""
