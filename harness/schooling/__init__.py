"""How the reference model came to be: knowledge, the text written about it, the samples, the training.

Nothing of the program imports this; `python -m harness.schooling` is its own command (see README.md here).
"""
