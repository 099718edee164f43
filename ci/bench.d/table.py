"""Figures of several rounds as medians, spread and ratios."""

import math
import statistics

# Whose figures those of the others are put in relation to.
OURS = "relay"


def summary(values):
    """Median, least and greatest of the rounds that gave a figure."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    return {"median": statistics.median(there), "least": min(there), "greatest": max(there),
            "rounds": len(there)}


def ratio(ours, theirs):
    """The median of the ratios within each round: what drifts between rounds cancels out."""
    pairs = [a / b for a, b in zip(ours, theirs) if a is not None and b]
    return statistics.median(pairs) if pairs else None


def means(results):
    """Adds rows that are the geometric mean of the sizes, for each echo row that has several."""
    groups = {}
    for row in results:
        head, _, what = row.partition(": ")
        head, _, size = head.rpartition(" x ")
        if row.startswith("echo ") and what == "CPU s per million" and size:
            groups.setdefault(f"{head}, mean of sizes: {what}", []).append(row)
    for name, rows in groups.items():
        if len(rows) < 2:
            continue
        results[name] = {}
        for peer in results[rows[0]]:
            rounds = zip(*(results[row].get(peer, ()) for row in rows))
            results[name][peer] = [
                None if None in sizes else math.exp(statistics.fmean(map(math.log, sizes)))
                for sizes in rounds]


def number(value):
    """Three digits that matter."""
    if value is None:
        return "–"
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def cell(values, ours=None):
    """Median, half of the range in percent, and in brackets what ours is of it."""
    found = summary(values)
    if not found:
        return "–"
    text = number(found["median"])
    if found["rounds"] > 1 and found["median"] and found["greatest"] > found["least"]:
        spread = (found["greatest"] - found["least"]) / 2 / abs(found["median"]) * 100
        text += f" ±{spread:.0f}%"
    share = ratio(ours, values) if ours else None
    if share is None:
        return text
    return f"{text} ({share:.2f})" if share >= 0.1 else f"{text} ({share:.2g})"


SECTIONS = (("Echo", "echo "), ("Bulk", "bulk "), ("Handshakes", "handshake "),
            ("Tunnels held", "held "), ("Reload", "reload "), ("System calls", "system calls"))


def document(results, peers, about):
    """The whole as Markdown."""
    lines = [f"- {key}: {value}" for key, value in about.items()]
    lines += ["", f"Medians of the rounds, ± half of their range. In brackets: what `{OURS}` is "
              "of that figure, as the median of the ratios within each round."]
    for title, prefix in SECTIONS:
        body = []
        for row, by_peer in results.items():
            if row.startswith(prefix):
                ours = by_peer.get(OURS)
                body.append([row, *(cell(by_peer.get(peer, ()), None if peer == OURS else ours)
                                    for peer in peers)])
        if body:
            lines += ["", f"### {title}", "", *_rows(["", *peers], body)]
    return "\n".join(lines) + "\n"


BEGIN, END = "<!-- written by ci/bench -->", "<!-- end of what ci/bench wrote -->"


def put_into(path, text):
    """Replaces what stands between the two marks in a file."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _rows(head, body):
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in body]
