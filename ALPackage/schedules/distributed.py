"""The continuous pipeline over processes: every rank runs the workers of its own layers, and hands on to the next.

    rank 0   caller --> [layers] --send--> rank 1 [layers] --send--> rank 2 [layers]
                ^                             |                         |
                '------- losses, codes, states: what each rank's layers have left

All that a run consists of, batches, snapshots, and its beginning and end, passes through all layers of all ranks in one
order, and so do the results, one message per item and rank. So rank 0 puts together what belongs together by counting.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist

from ..busy import busy, refuse_if_busy
from ..errors import StageError
from ..preflight import check_layers
from ..ranks.alarm import Alarm
from ..ranks.chain import make_chain
from ..ranks.link import Kind, Message, PeerLost
from ..ranks.links import Links, store_of
from ..ranks.messages import WIRES, add_result, as_item, as_message, result
from ..ranks.report import RankReport, report_of, weights_of
from ..ranks.states import (
    decoder_state,
    load_decoder,
    load_layer,
    options_of,
    release,
    states_elsewhere,
    take_options,
)
from ..stack import ALStack
from ..stage.batch import Batch, Marker, PredictBatch, TrainBatch
from ..stage.board import Item
from ..stage.channel import Closed
from ..stage.failure import FirstFailure
from ..stage.snapshot import Snapshot
from ..stage.trace import Usage
from .continuous import QUEUE_DEPTH, Continuous
from .schedule import Schedule

#: Seconds without a sign of life after which a rank counts as lost.
PATIENCE = 4.0


class Distributed(Continuous):
    """Every rank trains its own layers; rank 0 reads the batches and gets the results.

    Make it on every rank, in the default process group of `torch.distributed`, from the same stack: the weights are
    those of rank 0, which sends them. It gives back the memory of the layers that are another rank's. Rank 0 then uses
    it as any other schedule; the others call `serve`, which returns when rank 0 closes its schedule:

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
        workers, depth, streams_per_device: Of this rank, as for `Continuous`.
        timeout: Seconds within which a message that has begun has to arrive.
        patience: Seconds after which a rank that gives no sign of life counts as lost.
        wire: "fp32" sends tensors as they are. "bf16" rounds float32 tensors between ranks, to send half of the bytes;
            the numbers are then not those of other schedules.

    Attributes:
        weights: The bytes of the parameters and buffers of all layers, as one process would hold them.

    Raises:
        PlacementError: If `ranks` does not fit the layers or the processes.
        ValueError: If an option cannot be used.
        RuntimeError: If there is no process group.
    """

    name = "distributed"

    def __init__(
        self,
        stack: ALStack,
        *,
        ranks: Sequence[int] | None = None,
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
        Schedule.__init__(self, stack, **options)
        self._wire = wire
        world = dist.get_world_size()
        self._chain = own_chain = make_chain(len(stack), ranks, world, dist.get_rank())
        stack.refuse_shared_state()
        self.weights = weights_of(list(stack.items()))
        elsewhere = states_elsewhere(stack, own_chain) if own_chain.leads else {}
        release(stack, own_chain)
        own = [pair for index, pair in enumerate(stack.items()) if index in own_chain.own]
        self._over = False
        self._usage_elsewhere: dict[int, list[Usage]] = {}
        self._reports_elsewhere: dict[int, RankReport] = {}
        self._links = Links(own_chain, timedelta(seconds=timeout), self._lost)
        store = store_of(f"al/{_number()}")
        self._alarm = Alarm(store, own_chain.rank, world, ", ".join(name for name, _ in own), self._hear, patience)
        try:
            self._start(own, workers, depth, streams_per_device, self._leave if world > 1 else None)
        except BaseException as error:  # an option that this rank alone was given, or Ctrl-C
            self._alarm.tell(error)
            self._alarm.leave()
            raise
        self._alarm.thread.start()
        self._links.start()
        self._loading = False
        if elsewhere:
            self._send_states(elsewhere)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which runs and predicts; the others `serve`."""
        return self._chain.leads

    @property
    def ranks(self) -> list[int]:
        """The rank of every layer."""
        return list(self._chain.ranks)

    def reports(self) -> list[RankReport]:
        """Return what every rank holds and sends, on rank 0; of the others as of the end of the last run."""
        own = report_of(self._chain.rank, self._layers, self._links.traffic())
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
        links = self._links
        for event in item.events if isinstance(item, Batch) else ():
            event.synchronize()
        try:
            if links.to_next is not None:
                links.to_next.send(as_message(item, self._wire))
            if isinstance(item, Batch) and item.guard is not None:
                item.guard.check()
            if links.to_first is not None:
                links.to_first.send(self._result(item))
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

    def _result(self, item: Item) -> Message:
        if item is None:
            report = report_of(self._chain.rank, self._layers, self._links.traffic())
            return Message(Kind.END, content=([vars(usage) for usage in self.usage()], vars(report)))
        if not isinstance(item, Marker):
            return result(item)
        decoders = None
        if item.kind == Kind.BEGIN and item.content["predicts"]:
            decoders = {name: dict(decoder_state(layer)) for name, layer in self._layers}
        return Message(Kind(item.kind), content=decoders)

    # --- rank 0 -----------------------------------------------------------------------------------------------------

    def load(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Load the state of every layer, on whatever rank it is; not while a run is open.

        `states`: as in `Snapshot.state`. Raises RuntimeError on the other ranks.
        """
        self._refuse_follower("load")
        refuse_if_busy(self.stack, "load")
        for name, layer in self._layers:
            load_layer(layer, states[name])
        own = [name for name, _ in self._layers]
        if elsewhere := {name: dict(state) for name, state in states.items() if name not in own}:
            self._send_states(elsewhere)

    def _send_states(self, states: dict[str, Any]) -> None:
        self._settle()
        self._board.put(Marker(Kind.LOAD, states))
        self._loading = True

    def _settle(self) -> None:
        """Wait until every rank has the state that was sent."""
        if self._loading:
            self._loading = False
            self._wait_for(Kind.LOAD)

    def _wait_for(self, kind: Kind) -> None:
        """Take what is done until the marker of that kind has passed all ranks, while nothing else is under way."""
        try:
            while not (isinstance(done := self._take_done(), Marker) and done.kind == kind):
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
        if failure is None and self._links.to_next is not None:
            self._settle()
            self._board.put(Marker(Kind.PREPARE, {**self._modes(), "example": handed_on}))
            self._wait_for(Kind.PREPARE)
        return failure

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

    def _take_done(self) -> Item:
        item = super()._take_done()
        for rank, channel in self._links.results.items():
            self._add(item, rank, channel.get())
        return item

    def _add(self, item: Item, rank: int, message: Message) -> None:
        """Add to an item what another rank's layers have left."""
        content = message.content
        if item is None:
            usage, report = content
            self._usage_elsewhere[rank] = [Usage(**one) for one in usage]
            self._reports_elsewhere[rank] = RankReport(**report)
        elif not isinstance(item, Marker):
            add_result(item, content)
        elif content is not None:
            for name, layer in self.stack.items():
                if name in content:
                    load_decoder(layer, content[name])

    def _refuse_follower(self, what: str) -> None:
        if not self.leads:
            raise RuntimeError(f"rank {self._chain.rank} has no first layer: {what} on rank 0, and call serve() here")

    # --- the other ranks --------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Do this rank's part of what rank 0 runs and predicts, until it closes its schedule.

        Raises StageError for a failure in a layer, wherever it was; RankError where a rank is gone; RuntimeError on
        rank 0.
        """
        if self.leads:
            raise RuntimeError("serve: rank 0 has the first layer; it runs and predicts")
        try:
            while (message := self._links.inbox.get()).kind != Kind.CLOSE:
                if message.kind == Kind.LOAD:
                    self._load_part(message.content)
                    continue
                with self._taking_over(message.content):
                    if message.kind == Kind.PREPARE:
                        self._prepare_part(message.content)
                    else:
                        self._run_part(message)
            self._pass_on(Marker(Kind.CLOSE))
            self._links.wait()
        except Closed:
            self._raise_failure()
            raise RuntimeError("the distributed schedule was closed; make a new one to train on") from None
        except Exception as error:
            self._alarm.tell(error)
            raise

    def _load_part(self, states: dict[str, Any]) -> None:
        for name, layer in self._layers:
            load_layer(layer, states.pop(name))
        self._pass_on(Marker(Kind.LOAD, states))

    def _prepare_part(self, about: dict[str, Any]) -> None:
        handed_on = None
        if about["example"] is not None:
            failure, handed_on = self._check_own(about["example"])
            if failure is not None:
                raise failure
            self._prepare(TrainBatch(0, *about["example"]))
        self._pass_on(Marker(Kind.PREPARE, {**about, "example": handed_on}))

    def _run_part(self, begin: Message) -> None:
        """Take what arrives through this rank's layers, from the beginning of a run to its end."""
        self._refuse_other_layers()
        for name, layer in self._layers:
            take_options(layer, begin.content["options"][name])
        if not begin.content["predicts"]:  # for predictions the layers are in another mode, and no step is taken
            self._drop_stale_graphs()
        for worker in self._workers:
            worker.begin_run()
        self._order_streams(entering=True)
        before = self.stack.names[self._chain.own[0] - 1]
        self._board.put(Marker(Kind.BEGIN, begin.content))
        while True:
            message = self._links.inbox.get()
            item = as_item(message, before)
            if isinstance(item, TrainBatch) and not self._captured:
                self._prepare(item)  # nothing else is under way: a run's first batch
            self._board.put(item)
            if item is None:
                break
        while self._board.outlet.get() is not None:
            pass
        for worker in self._workers:
            worker.end_run()
        self._order_streams(entering=False)

    def _pass_on(self, marker: Marker) -> None:
        """Send a marker through this rank's layers and on, and wait until it has gone."""
        self._board.put(marker)
        while self._board.outlet.get() is not marker:
            pass

    @contextmanager
    def _taking_over(self, modes: dict[str, Any]) -> Iterator[None]:
        """Take over rank 0's modes, and be busy."""
        for name, layer in self._layers:
            for module, training in zip(layer.modules(), modes["training"][name], strict=True):
                module.training = training
        with ExitStack() as states:
            for kind, dtype in modes["autocast"]:
                states.enter_context(torch.autocast(kind, dtype=getattr(torch, dtype)))
            states.enter_context(self._opened(to_train=None if modes.get("predicts") else "serve"))
            states.enter_context(busy((self.stack, *self.stack)))
            try:
                yield
            except Closed:
                raise  # whatever closed this rank's part is known
            except Exception as error:
                self._alarm.tell(error)  # before the run is left, which the others would take for the reason
                raise

    # --- the end ----------------------------------------------------------------------------------------------------

    def _first_failure(self) -> FirstFailure:
        return FirstFailure(self._stop)

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
            if self.leads and not self._over and self._ended_when is None and self._failure.first is None:
                with suppress(Closed):
                    self._settle()
                    if self._unfinished:  # a run whose iterator nobody has closed
                        self._drain()
                    self._board.put(Marker(Kind.CLOSE))
                    self._wait_for(Kind.CLOSE)
                    self._links.wait()
        finally:
            self._end()
            try:
                super().close()
            finally:
                self._links.release()

    def _abort(self) -> None:
        if self._failure.first is None and not self._over:
            self._alarm.tell(RuntimeError(f"rank {self._chain.rank} has left the run"))
        self._end()
        super()._abort()

    def _end(self) -> None:
        self._over = True
        self._stop()
        self._alarm.leave()


_made = 0


def _number() -> int:
    """Return how many of these schedules this process has made: the same on every rank."""
    global _made
    _made += 1
    return _made
