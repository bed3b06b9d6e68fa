"""Hostile bundles by the thousand, each given to a device that may write nothing and use little memory.

`attacks` makes them, kind by kind, from a seed; `device` is a process that reads one as a device does; `campaign`
drives such processes and judges what they did; `python -m benchmarks.hostile` runs all of it.
"""
