"""The command line and the configuration: what is to be run."""
