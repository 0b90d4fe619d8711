"""From a command line to results: configuration, training, figures and reports."""
