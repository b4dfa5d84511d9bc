"""One module a command: its arguments, and what it prints; `app` imports it when it is called.

What its `--help` need not wait for is imported within the functions.
"""
