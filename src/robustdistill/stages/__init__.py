"""Stages: files in, files out. What runs when stands in `catalog`."""
