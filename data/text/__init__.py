"""The text data sets, one file each, and what turns text into ids and vectors."""
