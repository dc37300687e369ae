"""Charts as hand-written SVG: equal numbers give equal bytes, colours come from the page's CSS.

A chart is 400 units wide, so that its words stay legible on a phone. Several charts stand side by
side where there is room. Every chart has a title and a description for those who cannot see it.
Every `slug` below is the chart's id, unique on the page.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 14, 40
# A curve of more points is drawn as the means of so many equal stretches.
MOST_POINTS = 150


@dataclass(frozen=True)
class Line:
    """A curve: its legend, its CSS class and its (x, y) points in order of x. `dots` says that
    each point gets a mark."""

    label: str
    css: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


@dataclass(frozen=True)
class Shape:
    """A polygon of the radar, with one value for each axis: None where there is none."""

    label: str
    css: str
    values: Sequence[float | None]


def lines(
    slug: str,
    title: str,
    x: str,
    y: str,
    curves: Sequence[Line],
    *,
    marks: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Draw a line chart, whose axes `x` and `y` name. Each of `marks` is an upright line: its place
    on the x axis and its words. Curves without points are left out. A chart without any curve says
    that no points were logged."""
    nonempty = [curve for curve in curves if curve.points]
    if not nonempty:
        return _svg(slug, title, "No points were logged.", HEIGHT, [_note("no points were logged")])
    xs = [px for curve in nonempty for px, _ in curve.points]
    ys = [py for curve in nonempty for _, py in curve.points]
    across, up = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))
    # the x axis ends at the data, the y axis at a round number beyond it
    x0, x1 = min(xs), max(xs)
    y0, y1 = min(up[0], *ys), max(up[-1], *ys)

    def place(px: float, py: float) -> tuple[float, float]:
        # one value alone has no span to divide by, and stands in the middle
        right = (px - x0) / (x1 - x0) if x1 > x0 else 0.5
        high = (py - y0) / (y1 - y0) if y1 > y0 else 0.5
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - high * (
            HEIGHT - TOP - BOTTOM
        )

    parts = []
    for tick in up:
        _, tick_y = place(x0, tick)
        css = "axis" if tick == 0 else "mesh"
        parts.append(f'<path class="{css}" d="M{LEFT} {tick_y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 7}" y="{tick_y + 4:.1f}">{_tick(tick)}</text>')
    for tick in across:
        if x0 <= tick <= x1:
            tick_x, _ = place(tick, y0)
            parts.append(
                f'<text class="mid" x="{tick_x:.1f}" y="{HEIGHT - BOTTOM + 17}">'
                f"{_tick(tick)}</text>"
            )
    parts.append(
        Markup('<text class="mid label" x="{}" y="{}">{}</text>').format(
            (LEFT + WIDTH - RIGHT) // 2, HEIGHT - 6, x
        )
    )
    for px, words in marks:
        mark_x, _ = place(px, y0)
        # the words stand to the right of the line, or to its left where they would leave the chart
        side, gap = ("end", -5) if mark_x > WIDTH - 80 else ("start", 5)
        parts.append(f'<path class="mark" d="M{mark_x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(
            Markup('<text class="{}" x="{:.1f}" y="{}">{}</text>').format(
                side, mark_x + gap, TOP + 10, words
            )
        )
    for curve in nonempty:
        points = [place(*point) for point in _thin(curve.points)]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        parts.append(Markup('<path class="line {}" d="M{}"/>').format(curve.css, path))
        # a line through one point alone cannot be seen
        if curve.dots or len(points) == 1:
            parts += [
                Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3.2"/>').format(
                    curve.css, px, py
                )
                for px, py in points
            ]
    description = "; ".join(
        f"{curve.label} from {_value(curve.points[0][1])} to {_value(curve.points[-1][1])}"
        for curve in nonempty
    )
    return _svg(slug, title, f"{y} over {x}: {description}.", HEIGHT, parts)


@dataclass(frozen=True)
class Bar:
    """A kind of task: its share before and after filtering, and in the target, each 0 to 1."""

    label: str
    before: float
    after: float
    target: float


def shares(slug: str, title: str, bars: Sequence[Bar]) -> Markup:
    """Draw horizontal bars: a broad one for the share after filtering, a thin one below it for the
    share before, a tick across both for the target. The shares after filtering and of the target
    stand there as numbers too. The longest bar of all fills the width."""
    # margins at both sides, the top of the first bar, and the height that a bar takes
    left, right, first, pitch = 116, 104, 26, 27
    # at least 1 %, for bars that are all empty have no longest one to divide by
    top = max([0.01, *(value for bar in bars for value in (bar.before, bar.after, bar.target))])

    def bar_width(share: float) -> float:
        return (WIDTH - left - right) * share / top

    parts = [
        f'<text class="end" x="{WIDTH - 52}" y="16">after</text>',
        f'<text class="end" x="{WIDTH}" y="16">target</text>',
    ]
    for index, bar in enumerate(bars):
        y = first + index * pitch
        parts.append(
            Markup('<text class="end label" x="{}" y="{}">{}</text>').format(
                left - 8, y + 13, bar.label
            )
        )
        parts.append(
            f'<path class="bar accent" d="M{left} {y + 3}h{bar_width(bar.after):.1f}v10h-'
            f'{bar_width(bar.after):.1f}z"/>'
            f'<path class="bar quiet" d="M{left} {y + 15}h{bar_width(bar.before):.1f}v4h-'
            f'{bar_width(bar.before):.1f}z"/>'
        )
        parts.append(f'<path class="tick" d="M{left + bar_width(bar.target):.1f} {y}v22"/>')
        for x, css, share in ((WIDTH - 52, "end label", bar.after), (WIDTH, "end", bar.target)):
            parts.append(f'<text class="{css}" x="{x}" y="{y + 13}">{100 * share:.0f} %</text>')
    height = first + len(bars) * pitch + 4
    parts.append(f'<path class="axis" d="M{left} {first - 4}V{height - 6}"/>')
    description = "; ".join(
        f"{bar.label} {100 * bar.before:.0f} % before, {100 * bar.after:.0f} % after, "
        f"{100 * bar.target:.0f} % in the target"
        for bar in bars
    )
    return _svg(slug, title, f"{description}.", height, parts)


@dataclass(frozen=True)
class Stack:
    """Rows of one category: the number generated and the number kept, by strategy."""

    label: str
    generated: Mapping[str, int]
    kept: Mapping[str, int]


def stacks(slug: str, title: str, kinds: Mapping[str, str], rows: Sequence[Stack]) -> Markup:
    """Draw horizontal bars in parts: a broad one for the rows kept, a thin one below it for the
    rows generated, and both sums as numbers. `kinds` gives each part's CSS class, in the order in
    which the parts are drawn. The longest bar of all fills the width."""
    left, right, first, pitch = 164, 124, 26, 27
    top = max([1, *(sum(row.generated.values()) for row in rows)])

    def bar(counts: Mapping[str, int], y: int, thickness: int, css: str) -> Iterator[str]:
        x_start = float(left)
        for kind, colour in kinds.items():
            width = (WIDTH - left - right) * counts.get(kind, 0) / top
            shape = f"M{x_start:.1f} {y}h{width:.1f}v{thickness}h-{width:.1f}z"
            yield f'<path class="part {css} {colour}" d="{shape}"/>'
            x_start += width

    parts = [
        f'<text class="end" x="{WIDTH - 78}" y="16">kept</text>',
        f'<text class="end" x="{WIDTH}" y="16">generated</text>',
    ]
    for index, row in enumerate(rows):
        y = first + index * pitch
        parts.append(
            Markup('<text class="end label" x="{}" y="{}">{}</text>').format(
                left - 8, y + 13, row.label
            )
        )
        parts += [*bar(row.kept, y + 3, 10, "kept"), *bar(row.generated, y + 15, 4, "generated")]
        for x, css, counts in ((WIDTH - 78, "end label", row.kept), (WIDTH, "end", row.generated)):
            total = sum(counts.values())
            parts.append(f'<text class="{css}" x="{x}" y="{y + 13}">{total:,}</text>')
    height = first + len(rows) * pitch + 4
    parts.append(f'<path class="axis" d="M{left} {first - 4}V{height - 6}"/>')
    description = "; ".join(
        f"{row.label} "
        + ", ".join(
            f"{kind} {row.kept.get(kind, 0):,} of {row.generated.get(kind, 0):,}" for kind in kinds
        )
        for row in rows
    )
    return _svg(slug, title, f"Rows kept, of those generated: {description}.", height, parts)


@dataclass(frozen=True)
class Box:
    """Five numbers of a distribution, none below 0: minimum, three quartiles, maximum."""

    label: str
    css: str
    numbers: tuple[float, float, float, float, float]


def boxes(slug: str, title: str, x: str, rows: Sequence[Box]) -> Markup:
    """Draw box plots, one below the other, on a logarithmic axis that `x` names. A line goes from
    end to end, a box from quartile to quartile, and the median stands in it. Neighbouring rows of
    one label stand together, with the label beside the first."""
    if not rows:
        return _svg(slug, title, "No rows.", HEIGHT, [_note("no rows")])
    left, right, pitch, gap = 88, 24, 20, 12
    # the axis is of 1 + the value, for a length of 0 has no logarithm
    low = math.log1p(min(row.numbers[0] for row in rows))
    span = (math.log1p(max(row.numbers[4] for row in rows)) - low) or 1.0

    def place(value: float) -> float:
        return left + (WIDTH - right - left) * (math.log1p(value) - low) / span

    # True for the first row of each label, above which a gap is left
    starts_group = [
        index == 0 or rows[index - 1].label != row.label for index, row in enumerate(rows)
    ]
    bottom = TOP + len(rows) * pitch + sum(starts_group) * gap
    height = bottom + BOTTOM
    parts: list[str] = []
    # marks at 1, 3, 10, 30, 100 and so on, which lie about equally far apart on this axis
    for power in range(12):
        for tick in (10**power, 3 * 10**power):
            if low <= math.log1p(tick) <= low + span + 1e-9:
                tick_x = place(tick)
                parts.append(f'<path class="mesh" d="M{tick_x:.1f} {TOP}V{bottom}"/>')
                parts.append(
                    f'<text class="mid" x="{tick_x:.1f}" y="{bottom + 16}">{tick:,}</text>'
                )
    parts.append(
        Markup('<text class="mid label" x="{}" y="{}">{}</text>').format(
            (left + WIDTH - right) // 2, height - 6, x
        )
    )
    for index, row in enumerate(rows):
        y = TOP + index * pitch + sum(starts_group[: index + 1]) * gap
        if starts_group[index]:
            parts.append(
                Markup('<text class="end label" x="{}" y="{}">{}</text>').format(
                    left - 10, y + 5, row.label
                )
            )
        ends = [place(number) for number in row.numbers]
        parts.append(
            Markup(
                '<path class="whisker {css}" d="M{0:.1f} {y}H{4:.1f}"/>'
                '<path class="box {css}" d="M{1:.1f} {up}H{3:.1f}V{down}H{1:.1f}z"/>'
                '<path class="median {css}" d="M{2:.1f} {up}V{down}"/>'
            ).format(*ends, css=row.css, y=y, up=y - 7, down=y + 7)
        )
    description = "; ".join(
        f"{row.label} ({row.css}) {', '.join(map(_value, row.numbers))}" for row in rows
    )
    return _svg(slug, title, f"Minimum, quartiles, maximum: {description}.", height, parts)


def radar(
    slug: str, title: str, axes: Sequence[str], top: float, shapes: Sequence[Shape]
) -> Markup:
    """Draw a radar of at least three axes from 0 to `top`. A missing value is drawn at the
    centre."""
    height, radius = 310, 112
    cx, cy = WIDTH / 2, height / 2

    def place(axis: int, value: float) -> tuple[float, float]:
        # the first axis points up, and the others follow clockwise: y grows downward in SVG
        angle = 2 * math.pi * axis / len(axes)
        distance = radius * value / top
        return cx + distance * math.sin(angle), cy - distance * math.cos(angle)

    def ring(values: Sequence[float]) -> str:
        corners = (place(axis, value) for axis, value in enumerate(values))
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "Z"

    parts: list[str] = []
    for fifth in range(1, 6):
        parts.append(f'<path class="mesh" d="{ring([top * fifth / 5] * len(axes))}"/>')
    for axis, name in enumerate(axes):
        x, y = place(axis, top)
        parts.append(f'<path class="mesh" d="M{cx:.1f} {cy:.1f}L{x:.1f} {y:.1f}"/>')
        x, y = place(axis, top * 1.1)
        # a name grows away from the radar, and one above or below it stands centred
        side = "mid" if abs(x - cx) < 12 else "start" if x > cx else "end"
        down = 9 if y > cy + 60 else 0 if y < cy - 60 else 4
        short = name if len(name) <= 11 else name[:10] + "…"
        parts.append(
            Markup('<text class="{} label" x="{:.1f}" y="{:.1f}">{}</text>').format(
                side, x, y + down, short
            )
        )
    for fifth in (1, 3, 5):
        parts.append(
            f'<text class="start" x="{cx + 4:.1f}" y="{cy - radius * fifth / 5 + 12:.1f}">'
            f"{_tick(top * fifth / 5)}</text>"
        )
    for shape in shapes:
        values = [value or 0.0 for value in shape.values]
        parts.append(Markup('<path class="area {}" d="{}"/>').format(shape.css, ring(values)))
    description = "; ".join(
        f"{shape.label}: "
        + ", ".join(f"{a} {_value(v)}" for a, v in zip(axes, shape.values, strict=True))
        for shape in shapes
    )
    return _svg(slug, title, f"{description}.", height, parts)


def _svg(slug: str, title: str, description: str, height: int, parts: Sequence[str]) -> Markup:
    head = Markup(
        '<svg viewBox="0 0 {w} {h}" role="img" aria-labelledby="{s}-t {s}-d">'
        '<title id="{s}-t">{title}</title><desc id="{s}-d">{description}</desc>'
    ).format(w=WIDTH, h=height, s=slug, title=title, description=description)
    return head + Markup("".join(parts)) + Markup("</svg>")


def _note(text: str) -> str:
    return f'<text class="mid label" x="{WIDTH // 2}" y="{HEIGHT // 2}">{text}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers from at or below `low` to at or above `high`, in about four steps.

    The step is 1, 2, 2.5 or 5 times a power of ten: 0.13 to 0.9 gives 0, 0.2, 0.4, 0.6, 0.8, 1.
    """
    # two equal ends still need a span: their own size, or 1 where both are 0
    span = high - low or abs(high) or 1.0
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    # the tolerances keep a step or an end that is off by a rounding error where it belongs,
    # and the last rounding makes 0.30000000000000004 to 0.3
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= MOST_POINTS:
        return list(points)
    cuts = [len(points) * i // MOST_POINTS for i in range(MOST_POINTS + 1)]
    stretches = [points[a:b] for a, b in pairwise(cuts)]
    return [(sum(x for x, _ in s) / len(s), sum(y for _, y in s) / len(s)) for s in stretches]


def _tick(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _value(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
