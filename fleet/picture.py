"""The run as an SVG: tunnels of each node, and reconnects, over time."""

from harness.chart import Drawing


def draw(samples, names, opened, bands, begin, end, title):
    """`samples` are (instant, tunnels of each node), `opened` the instants of reconnects, `bands` (from, until, text)."""
    per_second = [0] * (int(end - begin) + 1)
    for instant in opened:
        if begin <= instant <= end:
            per_second[int(instant - begin)] += 1
    drawing = Drawing(title, begin, end)
    nodes = drawing.chart("Tunnels of each node", 50, 230, max(max(counts) for _, counts in samples), 4, gap=24)
    reconnects = drawing.chart("Reconnects per second", 335, 90, max(per_second), 2)
    drawing.bands(bands)
    reconnects.bars(per_second)
    nodes.curves([(name, [(instant, counts[number]) for instant, counts in samples]) for number, name in enumerate(names)])
    return drawing.svg()
