"""The run as an SVG without outside resources: tunnels of each node, and reconnects, over time."""

from html import escape

WIDTH, LEFT, RIGHT = 900, 60, 70
#: Top and height of the two charts.
CHARTS = [(50, 230), (335, 90)]
HEIGHT = 480
COLOURS = ["#0072b2", "#d55e00", "#009e73"]
GREY = "#666"
BANDS = ["#eee", "#f7f7f7"]


def draw(samples, names, opened, bands, begin, end, title):
    """`samples` are (instant, tunnels of each node), `opened` the instants of reconnects, `bands` (from, until, text)."""
    per_second = [0] * (int(end - begin) + 1)
    for instant in opened:
        if begin <= instant <= end:
            per_second[int(instant - begin)] += 1
    tops = [above(max(max(counts) for _, counts in samples)), above(max(per_second))]

    def x(instant):
        return LEFT + (instant - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)

    def y(chart, value):
        top, height = CHARTS[chart]
        return top + height * (1 - value / tops[chart])

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
             f"<title>{escape(title)}</title>", f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']  # fmt: skip
    low, (top, _) = sum(CHARTS[1]), CHARTS[0]
    for number, (start, until, text) in enumerate(bands):
        parts.append(f'<rect x="{x(start):.1f}" y="{top}" width="{x(until) - x(start):.1f}" height="{low - top}" '
                     f'fill="{BANDS[number % 2]}"/>')  # fmt: skip
        parts.append(text_at((x(start) + x(until)) / 2, top - 6, text, "middle", GREY))
    for chart, name in enumerate(["Tunnels of each node", "Reconnects per second"]):
        for step in range(5 if chart == 0 else 3):
            value = tops[chart] * step / (4 if chart == 0 else 2)
            parts.append(f'<path d="M{LEFT} {y(chart, value):.1f}H{WIDTH - RIGHT}" stroke="#ccc" stroke-width="0.5"/>')
            parts.append(text_at(LEFT - 6, y(chart, value) + 4, f"{value:g}", "end", GREY))
        parts.append(text_at(LEFT, CHARTS[chart][0] - (24 if chart == 0 else 8), name, "start", "#000"))
    for second, count in enumerate(per_second):
        if count:
            left, right = x(begin + second), x(min(begin + second + 1, end))
            parts.append(f'<rect x="{left:.1f}" y="{y(1, count):.1f}" width="{max(right - left, 0.5):.2f}" '
                         f'height="{low - y(1, count):.1f}" fill="#555"/>')  # fmt: skip
    ends = []
    for number, name in enumerate(names):
        points = " ".join(f"{x(instant):.1f},{y(0, counts[number]):.1f}" for instant, counts in samples if begin <= instant <= end)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[number]}" stroke-width="2"/>')
        ends.append([y(0, samples[-1][1][number]), name, COLOURS[number]])
    # The names at the ends of their lines, none on another.
    ends.sort()
    for number, (at, name, colour) in enumerate(ends):
        ends[number][0] = at = max(at, ends[number - 1][0] + 14) if number else at - 14 * (len(ends) - 1) / 2
        parts.append(text_at(WIDTH - RIGHT + 6, at + 4, name, "start", colour))
    for step in range(0, int(end - begin) + 1, above((end - begin) / 8)):
        parts.append(text_at(x(begin + step), low + 18, f"{step}", "middle", GREY))
    parts.append(text_at((LEFT + WIDTH - RIGHT) / 2, low + 36, "Seconds", "middle", GREY))
    return "\n".join([*parts, "</svg>", ""])


def text_at(x, y, text, anchor, colour):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def above(value):
    """The next of 1, 2, 4 and 8 times a power of ten."""
    power = 1
    while True:
        for factor in (1, 2, 4, 8):
            if factor * power >= value:
                return factor * power
        power *= 10
