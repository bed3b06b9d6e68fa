"""Placeholder docstring, replaced as the room fills."""
