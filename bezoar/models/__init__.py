"""Checkpoints: loaded from folders, made small, and let write."""
