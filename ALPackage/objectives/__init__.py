"""Local objectives: what a layer learns from."""
