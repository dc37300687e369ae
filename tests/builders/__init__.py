"""What tests of several rooms build on: servers, rows, runs and machines. No test stands here."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the project
