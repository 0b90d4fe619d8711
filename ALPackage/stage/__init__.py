"""What a worker does: take a batch, train its layers on it, hand it on."""
