"""A module for each part of the page, which works out its tables and figures."""
