"""What a checkpoint can: the harness, held-out questions, MT-Bench."""
