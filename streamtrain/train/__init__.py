"""Training: the settings and the request of a fit, its job, the loop, and resuming."""
