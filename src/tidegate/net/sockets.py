"""All the listeners of one server: the application's, and those for health checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tidegate.net.binds import binds_of, open_listeners
from tidegate.net.health_binds import health_binds, open_health_listeners
from tidegate.net.listener import Listener

if TYPE_CHECKING:
    from tidegate.config import Config


class Sockets:
    """The listeners of the application, and those for health checks."""

    def __init__(self, config: Config, inherited: Sequence[Listener] = ()) -> None:
        serving = binds_of(config)
        health = health_binds(config.health_bind, serving)
        self.serving = open_listeners(serving, config.backlog, config.uds_mode, inherited)
        left = [one for one in inherited if one not in self.serving]
        try:
            self.health = open_health_listeners(
                health, self.serving, config.backlog, config.uds_mode, left
            )
        except BaseException:
            self._close(self.serving)
            raise
        self._dropped = [one for one in left if one not in self.health]

    @property
    def all(self) -> list[Listener]:
        return [*self.serving, *self.health]

    def take_over(self) -> None:
        """What was inherited is ours; what of it nobody wants any more is closed."""
        for listener in (*self.all, *self._dropped):
            listener.take_over()
        self.close_dropped()

    def close_dropped(self) -> None:
        """Let go of what nobody wants any more, here; who connects there is to be turned away."""
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
