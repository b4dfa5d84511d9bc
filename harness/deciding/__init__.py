"""Runs that stop once it is decided which endpoint is better: in which order they ask, and who decides."""
