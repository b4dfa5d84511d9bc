"""What real endpoints do wrong, done on purpose: to rehearse on.

`plan` says what is to go wrong and reads it from the command line; `misbehaving` does it, around the handlers
of an application that knows nothing of it. All but `misbehaving` and `wholes` is pure: time and chance are
arguments.
"""
