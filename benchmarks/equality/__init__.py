"""Two checkouts that must compute the same numbers (see README.md)."""
