"""robustdistill: robust small models, distilled from hardened teachers, gated by evidence."""

__version__ = "0.1.0"
