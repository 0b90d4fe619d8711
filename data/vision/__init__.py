"""The vision data sets, one file each, and what brings their images into a network."""
