"""Memory: sizes, measuring the process, the gate that admits reads, and the monitor that enforces the budget."""
