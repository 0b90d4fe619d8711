"""One direction between two ranks: messages that arrive in the order in which they were sent.

    header (fixed size) | description, if it is another one than before | the tensors' bytes

A send returns when the receiver has taken the message, and the receiver takes one at a time: so what is under way is
bounded, and a slow receiver holds up its sender. Bytes only ever go down the chain of layers, and results to rank 0,
which always takes them: there is no circle of waits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .wire import Packed, pack, part_sizes, unpack

#: Shows that what arrives is the beginning of a message, of this version of the format.
MAGIC = 0x414C_0001
#: Messages have the tag 0.
UNUSED_TAG = 1
#: Magic, kind, number, digest of the description, bytes of the description that follow, bytes of the tensors.
FIELDS = 6
#: Nothing limits the time between two messages: an evaluation may lie there. Ranks that died or hang are found by other
#: means (see `alarm`).
UNLIMITED = timedelta(days=365)


class Kind(IntEnum):
    """What a message is about."""

    PREPARE = 1  # an example, to check the layers with
    BEGIN = 2  # a run begins
    TRAIN = 3
    PREDICT = 4
    SNAPSHOT = 5
    END = 6  # of a run
    CLOSE = 7  # of the schedule
    LOAD = 8  # the state of layers, which every rank takes its own from


@dataclass(frozen=True)
class Message:
    """A kind, the number of the batch that it is about, and a nested structure of tensors."""

    kind: Kind
    number: int = 0
    content: Any = None


class Traffic:
    """What has gone through an edge: messages and bytes of tensors by kind; headers and descriptions do not count."""

    def __init__(self) -> None:
        self.messages: Counter[Kind] = Counter()
        self.bytes: Counter[Kind] = Counter()

    def add(self, kind: Kind, size: int) -> None:
        """Count a message."""
        self.messages[kind] += 1
        self.bytes[kind] += size

    def __add__(self, other: Traffic) -> Traffic:
        """Return what both have counted; the messages of one kind are parts of the same batches."""
        both = Traffic()
        both.messages, both.bytes = self.messages | other.messages, self.bytes + other.bytes
        return both

    @property
    def per_batch(self) -> float:
        """Bytes per training batch."""
        return self.bytes[Kind.TRAIN] / max(1, self.messages[Kind.TRAIN])


class PeerLost(RuntimeError):  # noqa: N818 (what happened, and not what this process did wrong)
    """The connection to another rank broke, or a message that had begun did not arrive in time."""

    def __init__(self, rank: int | list[int], reason: BaseException) -> None:
        # gloo's words begin with a place in its sources, and go on with advice.
        told = re.sub(r"^\[\S+\] |\. This is typically .*$", "", str(reason).strip().splitlines()[0])
        super().__init__(told)
        #: Who it is, or may be.
        self.ranks = [rank] if isinstance(rank, int) else rank


class Sender:
    """The sending end. One thread at a time may use it.

    Args:
        group: A group of the two ranks.
        peer: The receiver's rank among all.
        timeout: Within what time the receiver has to take a message that it has begun to take.
        coded: Whether to code large tensors, so that they take fewer bytes.
    """

    def __init__(self, group: Any, peer: int, timeout: timedelta, *, coded: bool = False) -> None:
        self.traffic = Traffic()
        self.peer = peer
        self._group, self._timeout, self._coded = group, timeout, coded
        self._described: bytes | None = None

    def send(self, message: Message) -> None:
        """Send a message, and return when it has been taken. Raises PeerLost, LayerError for what cannot be sent."""
        self.begin(message)()

    def begin(self, message: Message) -> Callable[[], None]:
        """Begin to send a message, and return what waits until it has been taken, which has to be before the next one.

        Raises as `send`, both now and then.
        """
        packed = pack(message.content, coded=self._coded)
        new = packed.description != self._described
        self._described = packed.description
        header = torch.tensor(
            [MAGIC, message.kind, message.number, packed.digest, len(packed.description) if new else 0, packed.size]
        )
        described = [torch.frombuffer(bytearray(packed.description), dtype=torch.uint8)] if new else []
        try:
            # All at once, so that no part waits for the one before it to be taken. `packed` holds the tensors.
            works = [dist.isend(part, self.peer, group=self._group) for part in (header, *described, *packed.parts)]
        except RuntimeError as error:
            raise PeerLost(self.peer, error) from error

        def finish() -> None:
            try:
                _wait(works[:1], UNLIMITED)
                _wait(works[1:], self._timeout)
            except RuntimeError as error:
                raise PeerLost(self.peer, error) from error
            self.traffic.add(message.kind, packed.size)

        return finish


class Receiver:
    """The receiving end. One thread at a time may use it. `group`, `peer` and `timeout` are those of `Sender`."""

    def __init__(self, group: Any, peer: int, timeout: timedelta) -> None:
        self.peer = peer
        self._group, self._timeout = group, timeout
        self._description = b""
        self._sizes: list[int] = []

    def receive(self) -> Message:
        """Wait for the next message. Raises PeerLost."""
        header = torch.empty(FIELDS, dtype=torch.int64)
        try:
            self._take([header], UNLIMITED)
            magic, kind, number, digest, described, size = header.tolist()
            if magic != MAGIC:
                raise RuntimeError(f"got {magic:#x} where a message should begin; all ranks need the same version")
            if described:
                [written] = self._take([torch.empty(described, dtype=torch.uint8)], self._timeout)
                self._description = bytes(written.numpy())
                self._sizes = part_sizes(self._description)
            if Packed(self._description, []).digest != digest or sum(self._sizes) != size:
                raise RuntimeError(f"message {number} is not what its header announces")
            parts = self._take([torch.empty(one, dtype=torch.uint8) for one in self._sizes], self._timeout)
            return Message(Kind(kind), number, unpack(self._description, parts))
        except RuntimeError as error:
            raise PeerLost(self.peer, error) from error

    def _take(self, buffers: list[Tensor], limit: timedelta) -> list[Tensor]:
        _wait([dist.irecv(buffer, self.peer, group=self._group) for buffer in buffers], limit)
        return buffers


def _wait(works: Sequence[dist.Work | None], limit: timedelta) -> None:
    for work in works:
        assert work is not None  # it is for who is not in the group
        work.wait(limit)


def new_group(ranks: list[int], timeout: timedelta) -> Any:
    """Return a group of these ranks; every rank has to call this within `timeout`, in the same order."""
    return dist.new_group(ranks, timeout=timeout, backend="gloo")


def break_off(group: Any, peer: int) -> None:
    """End, with an error, every send and receive that is under way in the group; the peer sees a lost connection.

    gloo closes a connection when a wait on it passes its limit. Nobody sends what is waited for here.
    """
    with suppress(RuntimeError, ValueError):  # ValueError: the group is gone
        _wait([dist.irecv(torch.empty(1), peer, group=group, tag=UNUSED_TAG)], timedelta(milliseconds=10))
