"""Measurements, each one command: `python -m bench.NAME`. Results go to results/."""
