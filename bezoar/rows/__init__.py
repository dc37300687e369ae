"""What a row is: on disk, as text, as words. Every stage reads it."""
