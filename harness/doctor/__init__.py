"""Is an endpoint fit to be scored on: what is asked of it before money is spent, and what that shows."""
