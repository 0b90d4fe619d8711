"""`python -m training.predict`: what the kept weights of a run say of pictures or texts."""
