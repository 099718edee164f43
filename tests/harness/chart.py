"""Curves over time as an SVG without outside resources: charts above each other, with one axis of time."""

from html import escape

WIDTH, LEFT, RIGHT = 900, 60, 70
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
GREY = "#666"
BANDS = ["#eee", "#f7f7f7"]


class Chart:
    """One of a drawing: `most` is the highest value that is shown."""

    def __init__(self, drawing, top, height, most):
        self.drawing, self.top, self.height, self.most = drawing, top, height, above(most)

    def y(self, value):
        return self.top + self.height * (1 - value / self.most)

    def bars(self, values, colour="#555"):
        """A value for each second."""
        x, end, low = self.drawing.x, self.drawing.end, self.top + self.height
        for second, value in enumerate(values):
            if value:
                left, right = x(self.drawing.begin + second), x(min(self.drawing.begin + second + 1, end))
                self.drawing.front.append(f'<rect x="{left:.1f}" y="{self.y(value):.1f}" width="{max(right - left, 0.5):.2f}" '
                                          f'height="{low - self.y(value):.1f}" fill="{colour}"/>')  # fmt: skip

    def curves(self, curves):
        """(name, points) of each, a point is an instant and a value; the names stand at the ends of their lines."""
        drawing, ends = self.drawing, []
        for number, (name, points) in enumerate(curves):
            shown = [(instant, value) for instant, value in points if drawing.begin <= instant <= drawing.end]
            line = " ".join(f"{drawing.x(instant):.1f},{self.y(value):.1f}" for instant, value in shown)
            drawing.front.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[number]}" stroke-width="2"/>')
            ends.append([self.y(points[-1][1]), name, COLOURS[number]])
        # None on another.
        ends.sort()
        for number, (at, name, colour) in enumerate(ends):
            ends[number][0] = at = max(at, ends[number - 1][0] + 14) if number else at - 14 * (len(ends) - 1) / 2
            drawing.front.append(text_at(WIDTH - RIGHT + 6, at + 4, name, "start", colour))


class Drawing:
    """From `begin` to `end`, in seconds."""

    def __init__(self, title, begin, end):
        self.title, self.begin, self.end = title, begin, end
        self.back, self.front, self.charts = [], [], []

    def x(self, instant):
        return LEFT + (instant - self.begin) / (self.end - self.begin) * (WIDTH - LEFT - RIGHT)

    def chart(self, name, top, height, most, steps, gap=8):
        """Another chart, with so many steps of its scale; its name is `gap` above it."""
        chart = Chart(self, top, height, most)
        self.charts.append(chart)
        for step in range(steps + 1):
            value = chart.most * step / steps
            self.front.append(f'<path d="M{LEFT} {chart.y(value):.1f}H{WIDTH - RIGHT}" stroke="#ccc" stroke-width="0.5"/>')
            self.front.append(text_at(LEFT - 6, chart.y(value) + 4, f"{value:g}", "end", GREY))
        self.front.append(text_at(LEFT, top - gap, name, "start", "#000"))
        return chart

    @property
    def _top(self):
        return self.charts[0].top

    @property
    def _low(self):
        return self.charts[-1].top + self.charts[-1].height

    def bands(self, bands):
        """(from, until, text) each, behind all charts."""
        for number, (start, until, text) in enumerate(bands):
            self.back.append(f'<rect x="{self.x(start):.1f}" y="{self._top}" width="{self.x(until) - self.x(start):.1f}" '
                             f'height="{self._low - self._top}" fill="{BANDS[number % 2]}"/>')  # fmt: skip
            self.back.append(text_at((self.x(start) + self.x(until)) / 2, self._top - 6, text, "middle", GREY))

    def marks(self, marks):
        """(instant, colour) each, a thin line through all charts."""
        for instant, colour in marks:
            self.back.append(f'<path d="M{self.x(instant):.1f} {self._top}V{self._low}" stroke="{colour}" stroke-width="0.7"/>')

    def note(self, text):
        """What is to be known, above all charts."""
        self.front.append(text_at(WIDTH - RIGHT, self._top - 8, text, "end", GREY))

    def svg(self, unit=1, name="Seconds"):
        """The whole of it; the axis counts in this unit."""
        height = self._low + 55
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
                 f"<title>{escape(self.title)}</title>", f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>']  # fmt: skip
        parts += self.back + self.front
        units = (self.end - self.begin) / unit
        for step in range(0, int(units) + 1, above(units / 8)):
            parts.append(text_at(self.x(self.begin + step * unit), self._low + 18, f"{step}", "middle", GREY))
        parts.append(text_at((LEFT + WIDTH - RIGHT) / 2, self._low + 36, name, "middle", GREY))
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
