"""A supervisor whose workers are the tests' own: handles with a channel, and no process behind."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace
from typing import Any

from tidegate.config import Config
from tidegate.process.channel import Channel
from tidegate.process.handle import Handle
from tidegate.process.keys import Keys
from tidegate.process.supervisor import Supervisor
from tidegate.process.upgrade import Upgrade

LOG = "tidegate.test"


def a_house(**options: Any) -> Supervisor:
    """A supervisor of one worker that nobody has started, with nothing to listen on."""
    config = Config(**options)
    return Supervisor(
        config,
        SimpleNamespace(all=[], stop_serving=lambda: None),
        1,
        logging.getLogger(LOG),
        inbox=SimpleNamespace(was_ignored=lambda number: False),
        upgrade=Upgrade({}, "."),
        reloading=None,
        keys=Keys(config, handed=False),
        owner=SimpleNamespace(on_ready=lambda facts: None, on_complete=lambda: None),
    )


def worker_of(house: Supervisor) -> tuple[Handle, Channel]:
    """A handle in the house's crew, and the worker's side of its channel."""
    ours, theirs = Channel.pair()
    seat = house.board.seat(house.crew.lowest_seat())
    stack_fd = os.dup(theirs.fileno())
    handle = Handle(ours, stack_fd, seat, generation=house.crew.generation)
    house.crew.handles.append(handle)
    return handle, theirs
