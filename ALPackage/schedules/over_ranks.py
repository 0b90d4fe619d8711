"""What every rank of the continuous pipeline over processes does: run its layers' workers, and hand on to the next.

    rank 0   caller --> [layers] --send--> rank 1 [layers] --send--> rank 2 [layers]
                ^                             |                         |
                '------- losses, codes, states: what each rank's layers have left

All that a run consists of, batches, snapshots, and its beginning and end, passes through all layers of all ranks in one
order, and so do the results, one message per item and rank. So rank 0 puts together what belongs together by counting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from ..errors import PlacementError, StageError
from ..layer import LocalLayer
from ..preflight import check_layers
from ..ranks.alarm import Alarm
from ..ranks.averaging import GradientAveraging, refuse_inseparable
from ..ranks.batch_norm import refuse_unknown, synchronize, undo
from ..ranks.chain import Chain, make_chain
from ..ranks.link import Kind, Message, PeerLost
from ..ranks.links import Links, store_of
from ..ranks.messages import WIRES, as_message, result, rows_for
from ..ranks.report import RankReport, report_of, weights_of
from ..ranks.states import decoder_state, give_memory, has_values, release, states_elsewhere
from ..stack import ALStack
from ..stage.batch import Batch, Marker, PredictBatch, TrainBatch
from ..stage.board import Item
from ..stage.channel import Closed
from ..stage.cuda_graph import make_capturable
from ..stage.failure import FirstFailure
from ..stage.trace import Usage
from .continuous import QUEUE_DEPTH, Continuous
from .schedule import Schedule

#: Seconds without a sign of life after which a rank counts as lost.
PATIENCE = 4.0


class OverRanks(Continuous):
    """The part of `Distributed`, which describes the arguments, that all ranks have in common."""

    def __init__(
        self,
        stack: ALStack,
        *,
        ranks: Sequence[int] | None = None,
        replicas: Sequence[int] | None = None,
        sync_batchnorm: bool = False,
        workers: int | None = None,
        depth: int = QUEUE_DEPTH,
        streams_per_device: int = 1,
        timeout: float = 60.0,
        patience: float = PATIENCE,
        wire: str = "fp32",
        **options: Any,
    ) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                'schedule "distributed": there is no process group; start the script with torchrun, and call '
                "torch.distributed.init_process_group first"
            )
        if wire not in WIRES:
            raise ValueError(f"wire: got {wire!r}; expected one of {', '.join(WIRES)}")
        if options.get("cuda_graph") == "on" and max(replicas or [1]) > 1:
            raise ValueError(
                'cuda_graph: got "on" with replicas; what these average goes through the host, which no CUDA graph can '
                'capture: leave it at "auto"'
            )
        Schedule.__init__(self, stack, **options)
        self._wire = wire
        world = dist.get_world_size()
        self._chain = own_chain = make_chain(len(stack), ranks, world, dist.get_rank(), replicas)
        stack.refuse_shared_state()
        self.weights = weights_of(list(stack.items()))
        own = [pair for index, pair in enumerate(stack.items()) if index in own_chain.own]
        # Before anything has changed, and on every rank, of whatever stage it is.
        replicated = _replicated(stack, own_chain)
        refuse_inseparable(replicated)
        if sync_batchnorm:
            refuse_unknown(replicated)
        if len(own_chain.group) > 1:
            workers, streams_per_device = _enough_workers(own, workers, streams_per_device)
        #: States that other ranks do not have yet.
        self._unsent = self._take_layers(own)
        #: The first layer of the next stage, which says how its replicas divide a batch.
        following = own_chain.own[-1] + 1
        self._reader = stack[following] if following < len(stack) else None
        self._over = False
        self._usage_elsewhere: dict[int, list[Usage]] = {}
        self._reports_elsewhere: dict[int, RankReport] = {}
        self._links = Links(own_chain, timedelta(seconds=timeout), self._lost, coded=wire == "compressed")
        self._join_replicas(own, sync_batchnorm)
        store = store_of(f"al/{_number()}")
        self._alarm = Alarm(store, own_chain.rank, world, ", ".join(name for name, _ in own), self._hear, patience)
        try:
            self._start(own, workers, depth, streams_per_device, self._leave if world > 1 else None)
        except BaseException as error:  # an option that this rank alone was given, or Ctrl-C
            _leave_replicas(own)
            self._alarm.tell(error)
            self._alarm.leave()
            raise
        # What replicas exchange goes through the host, which no CUDA graph can capture.
        self._captured = self._captured or len(own_chain.group) > 1
        self._alarm.thread.start()
        self._links.start()

    def _take_layers(self, own: list[tuple[str, LocalLayer]]) -> dict[str, Any]:
        """Have memory for this rank's layers alone, and return, on rank 0, the states of the others."""
        elsewhere: dict[str, Any] = {}
        if self.leads:
            if empty := [name for name, layer in self.stack.items() if not has_values(layer)]:
                raise ValueError(
                    f"layer {empty[0]!r} is on the device meta, so rank 0 has no weights to send to the other ranks; "
                    "make its stack on another device, and a new stack for every distributed schedule"
                )
            elsewhere = states_elsewhere(self.stack, self._chain)
        else:
            for name, layer in own:
                if not has_values(layer):
                    give_memory(name, layer)
                    if self._cuda_graph != "off" and layer.device.type == "cuda":
                        make_capturable(layer)
        release(self.stack, self._chain)
        return elsewhere

    def _join_replicas(self, own: list[tuple[str, LocalLayer]], sync_batchnorm: bool) -> None:
        """Have each of this rank's layers average with its replicas, if it has any."""
        for (_, layer), group in zip(own, self._links.averages, strict=False):
            layer.averaging = averaging = GradientAveraging(group)
            averaging.synchronized = sync_batchnorm and synchronize(layer, group) > 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which runs and predicts; the others `serve`."""
        return self._chain.leads

    @property
    def ranks(self) -> list[int]:
        """The rank of every layer; of a stage with replicas, the first one."""
        return list(self._chain.ranks)

    def reports(self) -> list[RankReport]:
        """Return what every rank holds and sends, on rank 0; of the others as of the end of the last run."""
        own = report_of(self._chain, self._layers, self._links.traffic())
        others = (self._reports_elsewhere.get(rank) for rank in self._chain.order[1:])
        return [own, *(one for one in others if one is not None)]

    def usage(self) -> list[Usage]:
        """Return how each worker of every rank has spent its time; of the others, until the end of the last run."""
        own = super().usage()
        if len(self._chain.order) > 1:
            # Only rank 0 waits for the caller; the others wait for the rank before them.
            changes: dict[str, Any] = {} if self.leads else {"no_data": 0.0}
            own = [replace(one, device=f"rank{self._chain.rank} {one.device}", **changes) for one in own]
        return [*own, *(usage for rank in self._chain.order[1:] for usage in self._usage_elsewhere.get(rank, []))]

    # --- what leaves this rank --------------------------------------------------------------------------------------

    def _lost(self, error: Exception) -> None:
        """Report that a reader has failed, on its thread; when all is over, others may have gone first."""
        if not self._over:
            self._failure.report(self._explained(error))

    def _explained(self, error: Exception) -> Exception:
        return self._alarm.cause_of(error) if isinstance(error, PeerLost) else error

    def _leave(self, item: Item) -> bool:
        """Send on what has passed this rank's layers, and to rank 0 what they have left; on the thread of the exit."""
        links, chain = self._links, self._chain
        for event in item.events if isinstance(item, Batch) else ():
            event.synchronize()
        try:
            members = len(chain.groups[chain.stage + 1]) if links.to_next else 0
            # To all at once: a replica need not wait until another one has taken its rows.
            under_way = []
            for sender in links.to_next:
                place = chain.groups[chain.stage + 1].index(sender.peer)
                if isinstance(item, Batch) and not item.is_for(chain.own[-1] + 1):  # nobody behind this rank reads it
                    message = as_message(item, share=item.share)
                else:
                    message = self._message(item, place, members, self._reader)
                under_way.append(sender.begin(message))
            if isinstance(item, Batch) and item.guard is not None:
                item.guard.check()
            if links.to_first is not None:
                under_way.append(links.to_first.begin(self._result(item)))
            for finish in under_way:
                finish()
        except PeerLost as lost:
            if self._over:
                raise Closed from None
            reason = self._explained(lost)
            raise reason from reason.__cause__  # that of a layer's failure tells whose mistake it was
        if isinstance(item, TrainBatch):
            item.x = item.y = item.guard = None
        elif isinstance(item, PredictBatch):
            item.x = item.guard = None
        return self.leads or item is None or isinstance(item, Marker)

    def _message(self, item: Item, place: int, members: int, reader: LocalLayer | None) -> Message:
        """Return an item as a message; of a batch, the rows of the replica with this place among `members`."""
        if not isinstance(item, Batch):
            return as_message(item)
        if item.share is None:
            return as_message(item, self._wire, item.inputs)
        assert reader is not None
        return as_message(item, self._wire, *rows_for(item, place, members, reader))

    def _result(self, item: Item) -> Message:
        if item is None:
            report = report_of(self._chain, self._layers, self._links.traffic())
            return Message(Kind.END, content=([vars(usage) for usage in self.usage()], vars(report)))
        if not isinstance(item, Marker):
            return result(item)
        decoders = None
        if item.kind == Kind.BEGIN and item.content["predicts"] and not self._chain.replica:
            decoders = {name: dict(decoder_state(layer)) for name, layer in self._layers}
        return Message(Kind(item.kind), content=decoders)

    def _check_own(self, batch: tuple[Any, Any]) -> tuple[StageError | None, Any]:
        """Check this rank's layers; return the failure that ended the check early, or what the last one hands on."""
        handed_on: list[Any] = []
        failed = check_layers(
            self.stack,
            batch,
            concurrent=self.concurrent,
            seed=self._step.seed,
            context=self._step.autocast.context,
            own_settings=self._own_settings,
            part=[name for name, _ in self._layers],
            handed_on=handed_on,
        )
        if failed is not None:
            return StageError(failed[0], 0, failed[1]), None
        self._checked = True
        # A layer that cannot be copied ends the check, with a warning: then there is nothing to check the others with.
        return None, handed_on[0] if handed_on else None

    # --- the end ----------------------------------------------------------------------------------------------------

    def _first_failure(self) -> FirstFailure:
        return _FirstFailure(self._stop, self._explained)

    def _stop(self) -> None:
        """Close everything that a thread may wait for, and tell the other ranks why."""
        try:
            if (error := self._failure.first) is not None:
                self._alarm.tell(error)
        finally:
            self._board.close()
            self._links.close()

    def _hear(self, failure: Exception) -> None:
        self._failure.report(failure)

    def close(self) -> None:
        """End the workers of this rank, and, on rank 0, the other ranks' `serve`. Raises as `Continuous.close`."""
        if os.getpid() != self._process:
            return
        try:
            self._take_leave()
        finally:
            self._end()
            try:
                super().close()
            finally:
                _leave_replicas(self._layers)
                self._links.release()

    def _take_leave(self) -> None:
        """Have the other ranks end; on rank 0."""

    def _abort(self) -> None:
        if self._failure.first is None and not self._over:
            self._alarm.tell(RuntimeError(f"rank {self._chain.rank} has left the run"))
        self._end()
        super()._abort()
        _leave_replicas(self._layers)

    def _end(self) -> None:
        self._over = True
        self._stop()
        self._alarm.leave()


class _FirstFailure(FirstFailure):
    """Knows that a layer which lost its replicas has not failed itself. `explain`: finds out why."""

    def __init__(self, stop: Callable[[], None], explain: Callable[[Exception], Exception]) -> None:
        super().__init__(stop)
        self._explain = explain

    def report(self, error: Exception) -> None:
        """Keep the first failure, and stop everything."""
        lost = error.__cause__ if isinstance(error, StageError) else error
        super().report(self._explain(lost) if isinstance(lost, PeerLost) else error)


def _replicated(stack: ALStack, chain: Chain) -> list[tuple[str, LocalLayer]]:
    """Return the layers that have replicas, in whatever stage."""
    several = {group[0] for group in chain.groups if len(group) > 1}
    return [pair for pair, first in zip(stack.items(), chain.ranks, strict=True) if first in several]


def _leave_replicas(layers: Sequence[tuple[str, LocalLayer]]) -> None:
    """Have layers train alone again."""
    for _, layer in layers:
        if isinstance(layer.averaging, GradientAveraging):
            layer.averaging.end()
            layer.averaging = None
            undo(layer)


def _enough_workers(own: list[tuple[str, LocalLayer]], workers: int | None, streams_per_device: int) -> tuple[int, int]:
    """Return numbers of workers with which every layer of a replica finds one.

    A worker waits inside a layer for the layer's replicas. These may have begun with another layer: where both wait for
    the layer that the other's only worker would have to run, nobody ever goes on.
    """
    places = [layer.placement for _, layer in own]
    on_gpu = [place for place in places if place.type != "cpu"]
    tied = [str(place) for place in places if place.type == "cpu" and place.index is not None]
    free = len(own) - len(on_gpu) - len(tied)
    if len(set(tied)) < len(tied) or (tied and free):
        raise PlacementError(
            f"{', '.join(tied)}: layers of a stage with replicas need a worker each; tie all of them to different "
            "ones, or none"
        )
    most = max((on_gpu.count(place) for place in on_gpu), default=1)
    return max(workers or 1, len(own) - len(on_gpu), 1), max(streams_per_device, most)


_made = 0


def _number() -> int:
    """Return how many of these schedules this process has made: the same on every rank."""
    global _made
    _made += 1
    return _made
