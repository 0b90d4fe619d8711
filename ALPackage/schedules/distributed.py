"""The continuous pipeline over processes: what rank 0 does, and the schedule as `make_schedule` makes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

from ..busy import refuse_if_busy
from ..errors import LayerError, StageError
from ..ranks.link import Kind
from ..ranks.messages import as_message, rows_for, together
from ..ranks.report import RankReport
from ..ranks.states import load_decoder, load_layer, options_of
from ..rows import Share
from ..stage.batch import Batch, Marker, PredictBatch, TrainBatch
from ..stage.board import Item
from ..stage.channel import Closed
from ..stage.snapshot import Snapshot
from ..stage.trace import Usage
from .serving import Serving


class Distributed(Serving):
    """Every rank trains its own layers; rank 0 reads the batches and gets the results.

    Make it on every rank, in the default process group of `torch.distributed`, from the same stack: the weights are
    those of rank 0, which sends them before the first run. It gives back the memory of the layers that are another
    rank's. The other ranks may make the stack without weights, within `torch.device("meta")`: their own layers get new
    parameters then, where `set_device` has put them. Rank 0 uses it as any other schedule; the others call `serve`,
    which returns when rank 0 closes its schedule:

        with make_schedule("distributed", stack) as schedule:
            if not schedule.leads:
                schedule.serve()
            else:
                for losses in schedule.run(batches): ...

    What a script changes on rank 0 between two runs goes along as far as it is a mode, an optimizer's option or
    `requires_grad`; anything else has to be changed in every process. Rank 0's stack has the weights of its own layers:
    a `Snapshot` holds those of all, and `load` puts them back.

    Args:
        ranks: The rank of every layer; by default neighbors in nearly equal numbers.
        replicas: How many ranks each stage has, that is, each group of layers with one rank in `ranks`; they divide the
            rows of every batch, and average their gradients. `ranks` names the first one of each stage.
        sync_batchnorm: Whether replicas normalize by the rows of all of them, or each by its own.
        workers, depth, streams_per_device: Of this rank, as for `Continuous`.
        timeout: Seconds within which a message that has begun has to arrive.
        patience: Seconds after which a rank that gives no sign of life counts as lost.
        wire: "fp32" sends tensors as they are. "compressed" codes them without loss, which costs time and sends about
            0.8 of the bytes. "bf16" rounds float32 tensors between ranks, to send half of the bytes; the numbers are
            then not those of other schedules.

    Attributes:
        weights: The bytes of the parameters and buffers of all layers, as one process would hold them.

    Raises:
        PlacementError: If `ranks` does not fit the layers or the processes.
        ValueError: If an option cannot be used, or a layer cannot get its weights from rank 0.
        RuntimeError: If there is no process group.
    """

    name = "distributed"

    def load(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Load the state of every layer, on whatever rank it is; not while a run is open.

        `states`: as in `Snapshot.state`. Raises RuntimeError on the other ranks.
        """
        self._refuse_follower("load")
        refuse_if_busy(self.stack, "load")
        self._settle()
        for name, layer in self._layers:
            load_layer(layer, states[name])
        own = [name for name, _ in self._layers]
        replicas = bool(self._links.to_replicas)
        self._unsent = {name: dict(state) for name, state in states.items() if replicas or name not in own}

    def _settle(self) -> None:
        """Have the other ranks take over the states that they do not have yet.

        One layer at a time: what is sent passes through all ranks, and none needs memory for more.
        """
        own = [name for name, _ in self._layers]
        while self._unsent:
            name, state = next(iter(self._unsent.items()))
            self._take_round(Marker(Kind.LOAD, {} if name in own else {name: state}), {name: state})
            del self._unsent[name]

    def _take_round(self, marker: Marker, for_replicas: Any = None) -> None:
        """Send a marker through all ranks, while nothing else is under way, and wait until it has passed them."""
        try:
            self._put(marker, for_replicas)
            while not (isinstance(done := self._take_done(), Marker) and done.kind == marker.kind):
                pass
        except Closed:
            self._raise_failure()
            raise

    def _run(self, items: Iterator[Batch | Snapshot | Marker]) -> Iterator[Batch | Snapshot | Marker]:
        self._refuse_follower("run and predict")
        self._settle()
        # Up to the first batch, which has the layers checked: nothing of a run is under way then.
        first: list[Batch | Snapshot | Marker] = []
        for item in items:
            first.append(item)
            if isinstance(item, Batch):
                break
        if not first:
            return
        about = {**self._modes(), **self._options(), "predicts": isinstance(first[-1], PredictBatch)}
        yield from super()._run(chain([Marker(Kind.BEGIN, about), *first], items))

    def _check_layers(self, batch: tuple[Any, Any]) -> StageError | None:
        if self._checked:
            return None
        self._refuse_follower("prepare")
        failure, handed_on = self._check_own(batch)
        if failure is None and self._links.to_next:
            self._settle()
            about = {**self._modes(), "example": handed_on}
            # The replicas of this rank have the same layers, which are checked.
            self._take_round(Marker(Kind.PREPARE, about), {**about, "example": None})
        return failure

    def _modes(self) -> dict[str, Any]:
        """Return what the other ranks take over: the modes of their layers, and this thread's autocast."""
        return {
            "training": {name: [one.training for one in layer.modules()] for name, layer in self.stack.items()},
            "autocast": [(kind, str(dtype).removeprefix("torch.")) for kind, dtype in self._step.autocast.settings],
        }

    def _options(self) -> dict[str, Any]:
        """Return what a script may have changed between two runs: optimizer options, and which parameters train."""
        return {"options": {name: options_of(layer) for name, layer in self.stack.items()}}

    def _done(self) -> bool:
        return super()._done() and all(channel.ready() for channel in self._links.results.values())

    def _put(self, item: Item, for_replicas: Any = None) -> None:
        """Give the first layer its next item, and its replicas theirs. `for_replicas`: what a marker says to them."""
        if isinstance(item, Batch) and max(map(len, self._chain.groups)) > 1:
            self._divide(item)
        else:
            for channel in self._links.to_replicas:
                told = Marker(item.kind, for_replicas) if isinstance(item, Marker) and for_replicas else item
                channel.put(as_message(told))
        super()._put(item)

    def _divide(self, batch: Batch) -> None:
        """Send the replicas their rows of a batch, and leave it those of this rank."""
        first, members = self.stack[0], len(self._chain.group)
        try:
            total = first.rows(batch.inputs[0] if isinstance(batch, TrainBatch) else batch.inputs)
            batch.share = Share(0, total, total)
            messages = [self._message(batch, place, members, first) for place in range(1, members)]
            inputs, batch.share = rows_for(batch, 0, members, first)
        except LayerError as error:
            raise StageError(self.stack.names[0], batch.number, error) from error
        if inputs is None and isinstance(batch, TrainBatch):
            inputs = None, None
        batch.map_inputs(lambda _: inputs)
        # All or nothing: a replica that has its rows of a batch waits for the others.
        for channel, message in zip(self._links.to_replicas, messages, strict=True):
            channel.put(message)

    def _take_done(self) -> Item:
        item = super()._take_done()
        for group in self._chain.groups:
            messages = {rank: self._links.results[rank].get() for rank in group if rank}
            if not isinstance(item, Batch) or item.share is None:
                for rank, message in messages.items():
                    self._add(item, rank, message.content)
                continue
            parts = [messages[rank].content if rank else list(item.left) for rank in group]
            held = sum(map(item.is_for, self._chain.layers_of(group[0])))
            if not group[0]:
                item.left.clear()
            item.left.extend(together(parts, item.share.total, held, predicted=isinstance(item, PredictBatch)))
        return item

    def _add(self, item: Item, rank: int, content: Any) -> None:
        """Add to an item what another rank's layers have left; of replicas, the first one's is that of all."""
        if item is None:
            usage, report = content
            self._usage_elsewhere[rank] = [Usage(**one) for one in usage]
            self._reports_elsewhere[rank] = RankReport(**report)
        elif content is None:
            return
        elif isinstance(item, Batch):
            item.left.extend(content)
        elif isinstance(item, Snapshot):
            item.state |= content
        else:
            for name, layer in self.stack.items():
                if name in content:
                    load_decoder(layer, content[name])

    def _refuse_follower(self, what: str) -> None:
        if not self.leads:
            raise RuntimeError(f"rank {self._chain.rank} has no first layer: {what} on rank 0, and call serve() here")

    def _take_leave(self) -> None:
        if self.leads and not self._over and self._ended_when is None and self._failure.first is None:
            with suppress(Closed):
                self._settle()
                if self._unfinished:  # a run whose iterator nobody has closed
                    self._drain()
                self._take_round(Marker(Kind.CLOSE))
                self._links.wait()
