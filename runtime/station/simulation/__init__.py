"""A line in software around a real station: parts before its camera, a PLC at its wire, and the books compared."""
