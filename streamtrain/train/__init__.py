"""Training: what a fit is asked, the job made of it, the loop, and where a run goes on."""
