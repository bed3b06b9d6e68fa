"""Lineward beside its peers, side by side in one run: similarity, end to end, growth, and building of banks."""
