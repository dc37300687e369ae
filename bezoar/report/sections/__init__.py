"""A module for each part of the page: what its tables and figures show."""
