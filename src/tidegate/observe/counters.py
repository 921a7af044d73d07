"""Plain numbers about one worker, counted where things happen and read by whoever is curious.

Whoever counts is handed the one `Counters` of its worker and adds to an attribute: one worker is
one thread, so nothing is locked. This file imports nothing, and any layer may use it.
"""


class Counters:
    """What a worker has done so far."""

    __slots__ = ("connections", "fired", "requests")

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        # How often each limit or deadline had to act, under the name of its option, and how often
        # a request was refused, under its status.
        self.fired: dict[str, int] = {}

    def fire(self, name: str) -> None:
        """Count that the limit or deadline of the option `name` acted on a peer."""
        self.fired[name] = self.fired.get(name, 0) + 1

    def snapshot(self) -> dict[str, int]:
        """Every number under a flat name, as it stands now."""
        numbers = {"connections": self.connections, "requests": self.requests}
        for name, times in self.fired.items():
            numbers[f"fired_{name}"] = times
        return numbers
