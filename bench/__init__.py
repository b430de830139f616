"""Measurements, each one command: `python bench/NAME.py`. Results go to results/."""
