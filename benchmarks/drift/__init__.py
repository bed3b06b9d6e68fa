"""Drift detection measured: false alarms, and frames to the alarm for planted drifts."""
