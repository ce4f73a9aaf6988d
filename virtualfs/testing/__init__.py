"""What proves it: an oracle in plain Python, and Hypothesis strategies that look for its limits."""
