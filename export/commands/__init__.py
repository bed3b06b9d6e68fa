"""The workstation's commands."""
