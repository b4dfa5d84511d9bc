"""Journals of shards folded into one run: by key, in any order, any number of times, nothing lost."""
