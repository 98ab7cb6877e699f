"""Measurements: ratios and counts within one run."""
