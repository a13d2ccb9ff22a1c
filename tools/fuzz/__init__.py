"""Feeds damaged files to everything that reads what others wrote."""

from pathlib import Path

CORPUS = Path(__file__).parents[2] / "tests" / "fuzz" / "corpus"
"""A folder for each target: files good-* must be read, bad-* must be refused."""
