"""Delivery: how a bundle gets onto a device and becomes the active one, and how it is taken back."""
