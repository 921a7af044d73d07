"""What came out of a row, and how Tidegate stands in it. Numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.figures import Spread, Verdict, best, judge, ratios, spread
from bench.rows import BEST, Row, Target

Sample = Mapping[str, float]


@dataclass(slots=True)
class Outcome:
    """One server in one row: a sample a round, or `void` and the tail of its output."""

    server: str
    ours: bool
    samples: list[Sample] = field(default_factory=list)
    void: str = ""
    output: str = ""
    negotiated: str = ""

    def values(self, key: str) -> list[float]:
        """That figure, round by round."""
        return [sample[key] for sample in self.samples]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The subject against one server, or against a limit of its own (`target` without peer)."""

    server: str
    value: Spread
    target: Target | None
    limit: float | None
    verdict: Verdict | None


@dataclass(slots=True)
class RowResult:
    """All servers in one row; `eager` says whether this Python starts tasks eagerly (3.12+)."""

    row: Row
    outcomes: list[Outcome]
    eager: bool

    def counted(self) -> list[Outcome]:
        """The servers whose figures count."""
        return [one for one in self.outcomes if not one.void and one.samples]

    def subject(self) -> Outcome | None:
        """Whom the ratios are about: the first of ours, or the first of all if none was asked."""
        ours = [one for one in self.outcomes if one.ours] or self.outcomes
        counted = [one for one in ours if not one.void and one.samples]
        return counted[0] if counted else None

    def comparisons(self) -> dict[str, Comparison]:
        """By server; the entry under the subject's own name holds its absolute target."""
        subject = self.subject()
        if subject is None:
            return {}
        figure = self.row.figure
        medians = {
            one.server: spread(one.values(figure.key)).middle
            for one in self.counted()
            if not one.ours
        }
        strongest = best(medians, figure.better)
        made = {}
        for one in self.counted():
            target = self._target(one, strongest) if subject.ours else None
            if one is not subject:
                value = spread(ratios(subject.values(figure.key), one.values(figure.key)))
            elif target is not None:
                value = spread(one.values(figure.key))
            else:
                continue
            made[one.server] = self._judged(one.server, value, target)
        return made

    def _target(self, one: Outcome, strongest: str | None) -> Target | None:
        for target in self.row.targets:
            absolute = not target.peer and one is self.subject()
            ratio = target.peer == one.server or (target.peer == BEST and one.server == strongest)
            if absolute or ratio:
                return target
        return None

    def _judged(self, server: str, value: Spread, target: Target | None) -> Comparison:
        if target is None:
            return Comparison(server, value, None, None, None)
        limit = target.limit
        if not self.eager and target.before_eager_tasks is not None:
            limit = target.before_eager_tasks
        verdict = judge(value, limit, self.row.figure.better, tie=target.tie)
        return Comparison(server, value, target, limit, verdict)
