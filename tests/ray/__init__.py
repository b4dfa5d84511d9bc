"""Tests of workers on Ray; skipped where it is not installed."""
