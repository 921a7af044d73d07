"""All the listeners of one server: the application's, and those for health checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidegate.net.binds import binds_of, check_apart, open_listeners, parse_bind
from tidegate.net.listener import Listener

if TYPE_CHECKING:
    from tidegate.config import Config


class Sockets:
    """The listeners of the application, and those for health checks."""

    def __init__(self, config: Config, inherited: Sequence[Listener] = ()) -> None:
        health = [parse_bind(text) for text in config.health_bind]
        binds = [*binds_of(config), *health]
        check_apart(binds)
        opened = open_listeners(binds, config.backlog, config.uds_mode, inherited)
        names = {str(bind) for bind in health}
        self.serving = [one for one in opened if one.bind not in names]
        self.health = [one for one in opened if one.bind in names]
        for listener in inherited:
            if listener not in opened:
                listener.close()

    @property
    def all(self) -> list[Listener]:
        return [*self.serving, *self.health]

    def close(self) -> None:
        for listener in self.all:
            listener.close()
