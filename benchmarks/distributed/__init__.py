"""What processes cost, beside threads that have the same layers."""
