"""In which order, and on which threads, the layers of a stack train."""
