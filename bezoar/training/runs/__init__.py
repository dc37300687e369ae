"""What all kinds of training share: rows in batches, adapters, memory, processes, checkpoints."""
