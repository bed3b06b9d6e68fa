"""Offline, on the workstation: from good images to a bundle."""
