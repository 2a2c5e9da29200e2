"""The checks of learners and of pieces of preparation."""
