"""What is kept of a fit: the run folder, its lock and checkpoints, the report, and the list of runs."""
