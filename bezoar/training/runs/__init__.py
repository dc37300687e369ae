"""Shared by all kinds of training: rows in batches, adapters, memory, processes, checkpoints."""
