"""Checkpoints: written while training continues, and resumed from."""
