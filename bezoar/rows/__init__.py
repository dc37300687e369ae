"""Rows on disk, as text for a model, and as words. Every stage reads this package."""
