"""What connects the processes of a distributed run: who has which layers, messages, connections, and the alarm."""
