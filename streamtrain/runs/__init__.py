"""What a fit stores: the run folder, its lock and checkpoints, the report, and the list of runs."""
