"""Memory: sizes, what the process takes, the gate that admits reads, and the monitor that holds the process to its budget."""
