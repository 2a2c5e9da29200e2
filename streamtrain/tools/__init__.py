"""Every command but training: inspect, evaluate, predict, profile, rechunk, make."""
