"""The results as one SVG: a panel a row, a bar a server, whiskers from quartile to quartile.

Written by hand, so that the figures in the README need no plotting library.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.figures import Better, Spread, number, spread
from bench.results import RowResult

WIDTH = 820
LABELS = 150
BARS = 400
BAR = 18
STEP = 27
HEAD = 58
GAP = 26
MARGIN = 28
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
INK, SOFT, RULE = "#1f2933", "#616e7c", "#e4e7eb"
OURS, PEER, WHISKER, ALARM = "#0f766e", "#b6c2cf", "#52606d", "#b42318"


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a panel; without a value it says why."""

    name: str
    ours: bool
    value: Spread | None
    remark: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One row of the comparison."""

    title: str
    subtitle: str
    unit: str
    bars: list[Bar]


def panel(result: RowResult) -> Panel:
    """A row as bars, the best first; the remark is the subject's ratio to that server."""
    row = result.row
    subject = result.subject()
    compared = result.comparisons()
    bars = []
    for one in result.outcomes:
        if one.void or not one.samples:
            bars.append(Bar(one.server, one.ours, None, one.void or "not measured"))
            continue
        remark = ""
        if subject is not None and one is not subject:
            remark = f"{subject.server} {compared[one.server].value.middle:.2f} x this"
        bars.append(Bar(one.server, one.ours, spread(one.values(row.figure.key)), remark))
    sign = 1 if row.figure.better is Better.LOWER else -1
    bars.sort(key=lambda bar: (bar.value is None, sign * bar.value.middle if bar.value else 0.0))
    direction = "lower" if sign == 1 else "higher"
    subtitle = f"{row.figure.title}, {row.figure.unit} ({direction} is better)"
    return Panel(f"{row.name}: {row.title}", subtitle, row.figure.unit, bars)


def draw(panels: list[Panel], footer: str) -> str:
    """All panels below each other, the footer under them."""
    parts: list[str] = []
    top = MARGIN
    for one in panels:
        parts += _panel(one, top)
        top += HEAD + STEP * len(one.bars) + GAP
    parts.append(_text(MARGIN, top, footer, SOFT, 11))
    height = top + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" font-family="{escape(FONT)}" role="img">',
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _panel(one: Panel, top: int) -> list[str]:
    left = MARGIN + LABELS
    bottom = top + HEAD + STEP * len(one.bars) - (STEP - BAR)
    parts = [
        _text(MARGIN, top + 14, one.title, INK, 16, weight=600),
        _text(MARGIN, top + 34, one.subtitle, SOFT, 12),
        f'<line x1="{left}" y1="{top + HEAD - 8}" x2="{left}" y2="{bottom + 8}" stroke="{RULE}"/>',
    ]
    longest = max((bar.value.high for bar in one.bars if bar.value), default=0.0)
    for index, bar in enumerate(one.bars):
        parts += _bar(bar, top + HEAD + STEP * index, longest, one.unit)
    return parts


def _bar(bar: Bar, top: int, longest: float, unit: str) -> list[str]:
    left = MARGIN + LABELS
    line = top + BAR - 5
    weight = 600 if bar.ours else 400
    name = _text(left - 10, line, bar.name, INK, 13, weight=weight, anchor="end")
    if bar.value is None:
        return [name, _text(left + 8, line, _short(bar.remark), ALARM, 12)]
    scale = BARS / longest if longest else 0.0
    low, middle, high = (value * scale for value in _tuple(bar.value))
    colour = OURS if bar.ours else PEER
    centre = top + BAR / 2
    after = left + max(middle, high) + 8
    return [
        name,
        f'<rect x="{left}" y="{top}" width="{middle:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
        f'<path d="M{left + low:.1f} {centre}H{left + high:.1f}M{left + low:.1f} {centre - 4}v8'
        f'M{left + high:.1f} {centre - 4}v8" stroke="{WHISKER}" fill="none"/>',
        _text(after, line, f"{number(bar.value.middle)} {unit}", INK, 13, weight=weight),
        _text(WIDTH - MARGIN, line, bar.remark, SOFT, 11, anchor="end"),
    ]


def _tuple(value: Spread) -> tuple[float, float, float]:
    return value.low, value.middle, value.high


def _short(text: str, most: int = 78) -> str:
    first = text.splitlines()[0] if text else ""
    return "void: " + (first if len(first) <= most else first[: most - 1] + "…")


def _text(
    x: float, y: float, text: str, colour: str, size: int, *, weight: int = 400, anchor: str = ""
) -> str:
    extra = f' text-anchor="{anchor}"' if anchor else ""
    extra += f' font-weight="{weight}"' if weight != 400 else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{extra}>'
        f"{escape(text)}</text>"
    )
