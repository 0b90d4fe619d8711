"""The weights of the epochs that are reported, kept with what it takes to use them."""
