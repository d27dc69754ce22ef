"""Routing: which replica gets this message."""
