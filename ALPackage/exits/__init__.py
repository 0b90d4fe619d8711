"""Early exit: how sure a prediction is, what each depth costs, and which thresholds suit a validation set."""
