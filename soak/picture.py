"""The run as an SVG: tunnels, memory and processes over the time."""

from harness.chart import Drawing

#: Lines through all charts: when something was killed.
MARK = {"child": "#f3c6c6", "drain process": "#c6d4f3", "back end": "#c6f3d0"}


def draw(soak):
    """Of the whole run."""
    samples = [one for one in soak.samples if one.at <= soak.ended]
    minutes = max(1, round((soak.ended - soak.began) / 60))
    drawing = Drawing(f"{soak.args.tunnels} tunnels for {minutes} minutes, with reloads and what was killed", soak.began, soak.ended)
    charts = [
        ("Tunnels", 160, [("open", lambda one: one.open)]),
        ("Memory in MiB (Pss)", 160, [("all", lambda one: one.kib / 1024), ("drains", lambda one: one.drains_kib / 1024),
                                      ("children", lambda one: one.children_kib / 1024), ("parent", lambda one: one.parent_kib / 1024)]),
        ("Descriptors, in thousands", 90, [("all", lambda one: one.descriptors / 1000)]),
        ("Drain processes", 90, [("drains", lambda one: len(one.drains))]),
    ]  # fmt: skip
    top = 30
    for name, height, curves in charts:
        values = [(label, [(one.at, value(one)) for one in samples]) for label, value in curves]
        most = max(value for _, points in values for _, value in points)
        drawing.chart(name, top, height, most, 4).curves(values)
        top += height + 40
    drawing.marks([(instant, MARK[kind]) for instant, kind in soak.marks if kind in MARK])
    drawing.note("A line through all charts: a child (red), a drain process (blue) or a back end (green) was killed")
    return drawing.svg(60 if minutes >= 3 else 1, "Minutes" if minutes >= 3 else "Seconds")
