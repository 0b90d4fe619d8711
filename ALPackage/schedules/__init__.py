"""The schedules: in which order, and on which threads, the layers of a stack train.

All three compute the same numbers, bit for bit. Layer l on batch t needs only the detached pair (x, y) that
layer l-1 handed on for batch t, and its own weights after batch t-1; nothing flows downward. Time runs right,
F is forward and B is backward and update:

    sequential   layer 1  F0B0      F1B1                 the reference: one thread
                 layer 2      F0B0      F1B1
    al-fm        layer 1  F0B0      F1B1                 a thread per layer and batch for B, joined at the end
                 layer 2    F0B0      F1B1               of every batch (the earlier design, as a baseline)
    continuous   layer 1  F0B0F1B1F2B2F3B3               [1] workers, started once, take any layer that is ready
                 layer 2    F0B0F1B1F2B2F3B3             [2] a bounded queue before every layer; no barrier

What makes them equal: each layer sees the batches in order; its forward, backward and update of a batch are not
interleaved with another batch's; number and learning rate travel with the batch; random streams are derived
from (seed, layer, number); and every schedule uses the same number of intra-op threads.
"""
