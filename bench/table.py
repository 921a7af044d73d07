"""A row as a table for the terminal."""

from __future__ import annotations

from bench.figures import Better, number, spread
from bench.results import Comparison, Outcome, RowResult

# Below this share of its core a server was waiting for something that is not its work.
ENOUGH = 0.85
# Above this share of its own core the load generator may have been what was waited for.
EXHAUSTED = 0.95


def render(result: RowResult) -> str:
    """Title, one line a server, then whatever has to be said about those that do not count."""
    row = result.row
    subject = result.subject()
    name = subject.server if subject else "-"
    direction = "lower" if row.figure.better is Better.LOWER else "higher"
    lines = [
        f"{row.name}: {row.title}",
        f"  {row.figure.title} ({row.figure.unit}), {direction} is better",
        "",
    ]
    heads = ["server", row.figure.unit, "quartiles", f"{row.what}/s", "busy"]
    heads += [column.head for column in row.also]
    heads += [f"{name} / this", "quartiles", "target", "verdict"]
    compared = result.comparisons()
    body = [_line(one, result, compared.get(one.server), name) for one in result.outcomes]
    lines += ["  " + line for line in _aligned([heads, *body])]
    lines += _notes(result)
    return "\n".join(lines)


def _line(one: Outcome, result: RowResult, compared: Comparison | None, subject: str) -> list[str]:
    if one.void or not one.samples:
        return [one.server, "void", *[""] * (7 + len(result.row.also))]
    value = spread(one.values(result.row.figure.key))
    cells = [one.server, number(value.middle), f"{number(value.low)} - {number(value.high)}"]
    if "rate" in one.samples[0]:
        cells += [f"{spread(one.values('rate')).middle:,.0f}"]
        cells += [f"{spread(one.values('busy')).middle:.0%}"]
    else:
        cells += ["", ""]
    for column in result.row.also:
        middle = spread(one.values(column.key)).middle
        cells.append(f"{middle:.0%}" if column.share else number(middle))
    if compared is None:
        return [*cells, "", "", "", ""]
    if one.server == subject:
        cells += ["", ""]
    else:
        ratio = compared.value
        cells += [f"{ratio.middle:.3f}", f"{ratio.low:.3f} - {ratio.high:.3f}"]
    if compared.limit is None or compared.verdict is None:
        return [*cells, "", ""]
    limit = f"{result.row.figure.better.value} {compared.limit:g}"
    return [*cells, limit, compared.verdict.value]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Columns below each other; one with nothing under its head is left out."""
    right = range(1, len(rows[0]) - 2)
    filled = [c for c in range(len(rows[0])) if any(row[c] for row in rows[1:])]
    widths = {c: max(len(row[c]) for row in rows) for c in filled}
    lines = []
    for row in rows:
        cells = [row[c].rjust(widths[c]) if c in right else row[c].ljust(widths[c]) for c in filled]
        lines.append("  ".join(cells).rstrip())
    return lines


def _notes(result: RowResult) -> list[str]:
    lines = []
    for one in result.outcomes:
        if one.void:
            lines += ["", f"  {one.server} is void here: {one.void}"]
            lines += [f"    | {line}" for line in one.output.splitlines()]
    hungry = [share for share in map(_busy, result.counted()) if share < ENOUGH]
    if hungry:
        lines += [
            "",
            f"  {len(hungry)} had not the whole core (least: {min(hungry):.0%}): the load",
        ]
        lines += ["  generator or other work was in the way. Compare the CPU, not the rate."]
    exhausted = [one.server for one in result.counted() if _load_busy(one) > EXHAUSTED]
    if exhausted:
        lines += ["", f"  the load generator itself had no time left with {', '.join(exhausted)}:"]
        lines += ["  the rate is its own there, not the server's. Compare the CPU."]
    lines += _agreements(result)
    undecided = [c.server for c in result.comparisons().values() if _open(c)]
    if undecided:
        lines += ["", f"  undecided against {', '.join(undecided)}: ROUNDS=15 would tell"]
    return lines


def _busy(one: Outcome) -> float:
    return spread(one.values("busy")).middle if "busy" in one.samples[0] else 1.0


def _load_busy(one: Outcome) -> float:
    return spread(one.values("load_busy")).middle if "load_busy" in one.samples[0] else 0.0


def _agreements(result: RowResult) -> list[str]:
    """What each agreed to, where that is not the same for all."""
    by_agreement: dict[str, list[str]] = {}
    for one in result.counted():
        by_agreement.setdefault(one.negotiated, []).append(one.server)
    if len(by_agreement) < 2:
        return []
    return ["", *(f"  {', '.join(names)}: {what}" for what, names in by_agreement.items() if what)]


def _open(compared: Comparison) -> bool:
    return compared.verdict is not None and compared.verdict.value == "undecided"
