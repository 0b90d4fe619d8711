"""What the ranks but the first do in a distributed run: take their part of what rank 0 runs and predicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ..busy import busy
from ..ranks.link import Kind, Message
from ..ranks.messages import as_item
from ..ranks.states import load_layer, take_options
from ..stage.batch import Marker, TrainBatch
from ..stage.channel import Closed
from .over_ranks import OverRanks


class Serving(OverRanks):
    """The part of `Distributed` that the other ranks call."""

    def serve(self) -> None:
        """Do this rank's part of what rank 0 runs and predicts, until it closes its schedule.

        Raises StageError for a failure in a layer, wherever it was; RankError where a rank is gone; RuntimeError on
        rank 0.
        """
        if self.leads:
            raise RuntimeError("serve: rank 0 has the first layer; it runs and predicts")
        try:
            while (message := self._receive()[0]).kind != Kind.CLOSE:
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

    def _receive(self) -> list[Message]:
        """Return what comes next: one message, or the parts of it that several replicas have sent."""
        messages = [inbox.get() for inbox in self._links.inboxes]
        if len({(message.kind, message.number) for message in messages if message.kind != Kind.SNAPSHOT}) > 1:
            raise RuntimeError("replicas have handed on different batches where the same one was due")
        return messages

    def _load_part(self, states: dict[str, Any]) -> None:
        for name, layer in self._layers:
            if name in states:
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
        for name, layer in self._layers:
            take_options(layer, begin.content["options"][name])
        if not begin.content["predicts"]:  # for predictions the layers are in another mode, and no step is taken
            self._drop_stale_graphs()
        for worker in self._workers:
            worker.begin_run()
        self._order_streams(entering=True)
        first = self._chain.own[0]
        before, reader = self.stack.names[first - 1] if first else "loader", self.stack[first]
        self._board.put(Marker(Kind.BEGIN, begin.content))
        while True:
            item = as_item(self._receive(), before, reader, self._chain.replica, len(self._chain.group))
            if isinstance(item, TrainBatch) and not self._captured and not item.empty and item.is_for(first):
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
