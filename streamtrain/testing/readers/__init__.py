"""Checks for readers, and wrappers that make a reader misbehave on purpose."""
