"""The text data sets, and word vectors."""
