"""Measures of a checkpoint: the harness, held-out questions, MT-Bench."""
