"""Measurements: what takes how long, and how much memory. Not part of the tests."""
