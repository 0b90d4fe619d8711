"""The vision data sets."""
