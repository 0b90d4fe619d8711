"""BP over the processes of a command: the network in each of them, or in stages."""
