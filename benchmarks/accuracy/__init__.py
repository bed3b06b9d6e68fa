"""Lineward and its rivals side by side: the same images, backbone features and metrics for each."""
