"""Run a command: its methods, turns and epochs."""
