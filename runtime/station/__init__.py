"""The station: from a trigger beside the line to a verdict at the PLC, and everything that remembers it.

Start reading at `station.py`. `records.py` holds what passes from part to part, `configuration.py` the station file.
"""
