"""The embedded endpoint: Friendli's completions over real HTTP, with a language model behind it.

It knows the wire (`wire`, `asking`, `app`) and a model (`models.seam` is what one must offer). It does not
know tasks, runs or scores, and nothing but the command line imports it.
"""
