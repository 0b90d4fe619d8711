"""Networks that nobody here wrote, at full size: time and memory of AL beside BP."""
