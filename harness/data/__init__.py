"""Rows of a split: read from files or the hub, checked before the first request, listed for the journals."""
