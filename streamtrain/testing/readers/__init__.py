"""The checks of readers, and readers that misbehave on purpose."""
