"""Provisioning: one archive with everything that makes a bare device into a station, with no network there."""
