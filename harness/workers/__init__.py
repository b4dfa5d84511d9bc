"""A run from several processes, of this machine or of a cluster.

The run hands out pieces of itself, and keeps what comes back."""
