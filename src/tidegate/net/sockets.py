"""All the listeners of one server: the application's, and those for health checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        self._dropped = [one for one in inherited if one not in opened]

    @property
    def all(self) -> list[Listener]:
        return [*self.serving, *self.health]

    def take_over(self) -> None:
        """What was inherited is ours; what of it nobody wants any more is closed."""
        for listener in (*self.all, *self._dropped):
            listener.take_over()
        self._close(self._dropped)

    def stop_serving(self) -> None:
        """Close those of the application: who connects is turned away. Health is still told."""
        self._close(self.serving)

    def close(self) -> None:
        self._close([*self.all, *self._dropped])

    @staticmethod
    def _close(listeners: Iterable[Listener]) -> None:
        for listener in listeners:
            listener.close()
