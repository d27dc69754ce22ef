"""Transports: how payloads get from one process to another. Everything above speaks `base` only."""
