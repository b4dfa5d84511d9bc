"""Tests of what the extra `local` serves; skipped where torch is not installed."""
