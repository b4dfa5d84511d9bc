"""What is asked beside a run, to see that its numbers mean something: that an adapter is applied, how noisy
the endpoint is, and that the served model stays the same.
"""
