"""Checkpoints: written while training goes on, and gone on from."""
