"""The fault suite: real processes on a real node, killed at random moments; each prints a table."""
