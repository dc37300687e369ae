"""Bezoar: the OpenBezoar recipe (arXiv 2404.12195) as a data-versioned pipeline."""
