"""Prompts as chats: messages out of items, a tokenizer's own template, and a sandbox to render it in."""
