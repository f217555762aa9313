"""Measurements: ratios within one run, the machine, and the limits they are held against."""
