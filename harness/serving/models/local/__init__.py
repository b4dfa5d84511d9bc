"""Causal language models through torch and transformers; imports them, so it needs the extra `local`."""
