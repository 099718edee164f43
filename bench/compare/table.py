"""Figures of several rounds as medians, spread and ratios."""

import math
import re
import statistics

# Whose figures those of the others are put in relation to.
OURS = "relay"


def there(values):
    """Those of the rounds that gave a figure."""
    return [value for value in values if value is not None]


def median(values):
    """Of the rounds that gave a figure."""
    values = there(values)
    return statistics.median(values) if values else None


def ratio(ours, theirs):
    """The median of the ratios within each round: what drifts between rounds cancels out."""
    return median(ratios(ours, theirs))


def ratios(ones, others):
    """Round by round. Memory may shrink: of that there is none."""
    return [a / b if a is not None and a >= 0 and b and b > 0 else None
            for a, b in zip(ones, others)]


def derived(results):
    """The rows, and after them those that follow from them."""
    return {**results, **means(results), **growth(results)}


def means(results):
    """The geometric mean of the sizes, for each kind of echo row that has several."""
    groups, found = {}, {}
    for row in results:
        head, _, what = row.partition(": ")
        head, _, size = head.rpartition(" x ")
        if row.startswith("echo ") and what in ("CPU s per million", "p99 us") and size:
            groups.setdefault(f"{head}, mean of sizes: {what}", []).append(row)
    for name, rows in groups.items():
        if len(rows) < 2:
            continue
        found[name] = {}
        for peer in results[rows[0]]:
            rounds = zip(*(results[row].get(peer, ()) for row in rows))
            found[name][peer] = [
                None if None in sizes else math.exp(statistics.fmean(map(math.log, sizes)))
                for sizes in rounds]
    return found


# What is compared as tunnels grow: its name, the row's end, and the level to compare with.
GROWN = (("CPU per message", ", echo 64 x 1024 B: CPU s per million", 100),
         ("CPU per handshake", ", handshake: CPU us", 100),
         # With fewer it is lost in what the page has besides.
         ("CPU per tunnel in ?json", ", ?json: CPU us a tunnel", 1000),
         ("CPU per tunnel in ?metrics", ", ?metrics: CPU us a tunnel", 1000),
         ("plain GET p50", ": GET p50 us", 0),
         ("plain GET p99", ": GET p99 us", 0),
         ("threads", ": threads", 100))


def growth(results):
    """How much more it is with many tunnels held than with few or none."""
    found = {}
    levels = sorted({int(number) for row in results
                     for number in re.findall(r"^held ws (\d+)\b", row)})
    for what, end, base in GROWN:
        few = results.get(f"held ws {base}{end}", {})
        for level in levels:
            many = results.get(f"held ws {level}{end}", {})
            if level > base and few and many:
                held = f"{base:,}" if base else "none"
                found[f"growth of {what}: {level:,} held / {held}"] = {
                    peer: ratios(many[peer], few[peer]) for peer in many if peer in few}
    return found


def number(value):
    """Three digits that matter."""
    if value is None:
        return "–"
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def cell(values, ours=None):
    """Median, least and greatest, and in brackets what ours is of it."""
    found = there(values)
    if not found:
        return "–"
    text = number(statistics.median(found))
    least, greatest = number(min(found)), number(max(found))
    if least != greatest:
        text += f" [{least}–{greatest}]"
    share = ratio(ours, values) if ours else None
    if share is None:
        return text
    return f"{text} ({share:.2f})" if share >= 0.1 else f"{text} ({share:.2g})"


SECTIONS = (("Echo", "echo "), ("Bulk", "bulk "), ("Handshakes", "handshake "),
            ("Tunnels held", "held "), ("Cost growth", "growth "), ("Storm", "storm "),
            ("Reload", "reload "),
            ("System calls", "system calls"))


def remarks(notes, prefix):
    """What failed or was left out in the measurements of a section, the rounds put together."""
    rounds = {}
    for note in notes:
        if note["measurement"].startswith(prefix.strip()):
            key = (note["peer"], note["measurement"], note["kind"], note["text"])
            rounds.setdefault(key, []).append(str(note["round"]))
    return [f"- {peer}, {measurement}: {kind} ({'round' if len(found) == 1 else 'rounds'} "
            f"{', '.join(found)}): {text}"
            for (peer, measurement, kind, text), found in rounds.items()]


def document(results, peers, about, notes, once, targets):
    """The whole as Markdown."""
    lines = [f"- {key}: {value}" for key, value in about.items()]
    lines += ["", "Medians of the rounds, and [least–greatest] of them. In brackets: what "
              f"`{OURS}` is of that figure, as the median of the ratios within each round. "
              "Without figures are what a peer has not (`direct` has no processes to measure) "
              "and what the notes below a table name."]
    if targets:
        body = [[target["row"], target["must"], outcome(target["measured"], target["reached"]),
                 target["aim"], outcome(target["aim measured"], target["aim reached"])]
                for target in targets]
        lines += ["", "### Targets", "",
                  *_rows(["Row", "must", "measured", "aim", "measured"], body, ":---")]
    for title, prefix in SECTIONS:
        body = []
        for row, by_peer in results.items():
            if row.startswith(prefix):
                # Of a peer's own ratios ours is not a part.
                ours = None if prefix == "growth " else by_peer.get(OURS)
                name = f"{row} (measured once)" if row in once else row
                body.append([name, *(cell(by_peer.get(peer, ()), None if peer == OURS else ours)
                                     for peer in peers)])
        said = remarks(notes, prefix)
        if body or said:
            lines += ["", f"### {title}", *(["", *_rows(["", *peers], body)] if body else []),
                      *(["", *said] if said else [])]
    return "\n".join(lines) + "\n"


def outcome(measured, reached):
    """A target's cell."""
    return measured if reached is None else f"{measured}: {'yes' if reached else '**no**'}"


BEGIN, END = "<!-- written by ci/bench -->", "<!-- end of what ci/bench wrote -->"


def put_into(path, text):
    """Replaces what stands between the two marks in a file."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _rows(head, body, alignment="---:"):
    lines = ["| " + " | ".join(head) + " |", "|---" + f"|{alignment}" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in body]
