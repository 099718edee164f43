"""The run in figures: what is printed, and the part of docs/reliability.md that is written by it."""

import os
import platform
from dataclasses import dataclass

from measure import Slope

BEGIN, END = "<!-- soak: written by ci/soak -->\n", "<!-- soak end -->"
#: So many quiet times make a slope.
ENOUGH = 6
#: What memory may grow by over the steady time, as a share of its mean; and that of one drain process, in KiB: its relay
#: takes a buffer of 256 KiB when it first needs one. And for each tunnel that it collects of others.
MEMORY, ONE_DRAIN, COLLECTED = 0.05, 1024, 4


@dataclass
class Row:
    """A slope. It may grow by `allowed` from its first to its last point, by anything if that is None."""

    what: str
    slope: Slope
    allowed: float
    rule: str

    @property
    def holds(self):
        """Not if it grows by more, and that is not chance: twice its standard error."""
        slope = self.slope
        surely = (slope.last - slope.first) * (1 - min(1, 2 * slope.error / abs(slope.an_hour))) if slope.an_hour else 0
        return self.allowed is None or surely <= self.allowed

    @property
    def said(self):
        return f"{self.slope.first:.1f} to {self.slope.last:.1f}"

    def line(self):
        first, last, an_hour, error = (self.slope.first, self.slope.last, self.slope.an_hour, self.slope.error)
        return f"| {self.what} | {first:.1f} | {last:.1f} | {an_hour:+.1f} ± {error:.1f} | {self.rule} |"


def rows(soak):
    """Of the steady time, if it was long enough."""
    steady = [one for one in soak.settled if one.at >= soak.steady]
    if soak.args.small or len(steady) < ENOUGH:
        return []

    def row(what, value, allowed, rule):
        slope = Slope.of([(one.at, value(one)) for one in steady])
        return Row(what, slope, allowed and allowed(slope), rule)

    def share(slope):
        return MEMORY * slope.mean

    five = f"{MEMORY:.0%}"
    return [
        row("tunnels", lambda one: one.open, None, "-"),
        row("drain processes", lambda one: len(one.drains), None, "-"),
        row("memory of all processes (Pss), MiB", lambda one: one.kib / 1024, None, "-"),
        row("the same for each tunnel, KiB", lambda one: one.kib / one.open, share, five),
        row("the parent's own memory, MiB", lambda one: one.parent_own_kib / 1024, share, five),
        row("descriptors of the parent", lambda one: one.parent_descriptors, lambda _: 1, "1"),
        row("descriptors besides two for each tunnel, for each process",
            lambda one: (one.descriptors - 2 * one.open) / (1 + len(one.children) + len(one.drains)), lambda _: 1, "1"),
    ]  # fmt: skip


def grown(soak):
    """What a drain process grew by from the first to the last time that it was seen, in KiB, beyond what it had for the
    tunnels that it collected: the one that grew most."""
    return max((seen[-1][1] - seen[0][1] - COLLECTED * collected(seen) for seen in soak.drains.values()), default=0)


def collected(seen):
    """How many more tunnels a drain process had at any time than when it was first seen."""
    return max(had for _, _, had in seen) - seen[0][2]


def oldest(soak):
    """Of the drain process that was seen most often: minutes, and KiB and tunnels at both ends."""
    seen = max(soak.drains.values(), key=len)
    (begin, first, had), (end, last, has) = seen[0], seen[-1]
    return (end - begin) / 60, (first, had), (last, has)


def figures(soak, loads):
    """What is to be said, and the rows."""
    ledger, did = soak.clients.ledger, soak.did
    found = rows(soak)
    said = {
        "seed": soak.args.seed, "minutes": round((soak.ended - soak.began) / 60, 1), "tunnels": soak.args.tunnels,
        "opened": ledger.opened, "ended": dict(ledger.ended), "handshakes": dict(ledger.refused),
        "reloads": did["reload"], "children": did["child"], "drain processes": did["drain process"],
        "back ends": did["back end"], "clock": did["clock"], "counted": len(soak.settled),
        "register": max(abs(one.listed - one.open) for one in soak.settled),
        "counts": max(abs(one.counted - one.open) for one in soak.settled),
        "besides": {kind: [min(seen), max(seen)] for kind, seen in soak.besides.items() if seen},
        "fallbacks": soak.fallbacks, "whys": dict(soak.log.whys), "expected lines": dict(soak.log.came), "wrong": len(soak.wrong),
        "load": [min(loads), max(loads)], "slopes": {one.what: [round(one.slope.an_hour, 2), one.holds] for one in found},
    }  # fmt: skip
    said["text"] = text(soak, said)
    return said, found


def text(soak, said):
    """The run in sentences."""
    opened = [one.open for one in soak.settled]
    ended, besides = said["ended"], said["besides"]
    wanted = ended.get("its client left", 0)
    victims = sum(number for why, number in ended.items() if why.startswith("its ") and why != "its client left")
    lines = [
        f"`ci/soak {soak.args.hours:g} --tunnels {soak.args.tunnels} --seed {soak.args.seed}`, {said['minutes']:.0f} minutes, "
        f"mod_wsforward {soak.version}, httpd {soak.httpd}, event, Linux {platform.release().partition('-')[0]}, "
        f"{os.cpu_count()} processors with a load average of {said['load'][0]:.1f} to {said['load'][1]:.1f}:",
        "",
        f"- {said['reloads']} graceful reloads; {said['children']} children, {said['drain processes']} drain processes and "
        f"{said['back ends']} back ends killed; the wall clock set {said['clock']} times, by an hour or two.",
        f"- {said['opened']} tunnels opened. {wanted} ended when their client wanted it, {victims} because their process or "
        f"their back end was killed, {ended.get('for no reason', 0)} for no reason.",
        f"- {said['counted']} times all open tunnels were asked and had to answer, and the register had to have the very same "
        f"ones, by name: greatest difference {said['register']}, of the counts {said['counts']}. {min(opened)} to {max(opened)} "
        "were open then: whoever lost one comes back when there is room for its handshake.",
    ]
    lines += [f"- Handshakes that came to nothing because {why.replace('its ', 'their ')}: {number}." for why, number in sorted(said["handshakes"].items())]
    lines += [f"- Descriptors of a {kind} besides two for each tunnel: {least} to {most}."
              for kind, (least, most) in besides.items()]  # fmt: skip
    if soak.drains:
        minutes, (first, had), (last, has) = oldest(soak)
        lines.append(f"- The drain process that lived longest was seen for {minutes:.0f} minutes: {first} KiB of its own "
                     f"(anonymous) with {had} tunnels at first, {last} KiB with {has} at last. "
                     f"None of {len(soak.drains)} grew by more than {grown(soak)} KiB from the first to the last time that "
                     f"it was seen ({ONE_DRAIN} are allowed), but for {COLLECTED} KiB for each tunnel that it collected: "
                     f"at most {max(map(collected, soak.drains.values()))}.")
    lines.append(f"- Lines at warn or above in the error log that no killed process or back end explains: {soak.did['unexpected']}.")
    return "\n".join(lines)


def write(file, drawn, said, found):
    """Writes it into the page."""
    parts = [said["text"]]
    if found:
        parts += ["", "| In the steady time | at its beginning | at its end | in an hour | may grow by |", "|---|---|---|---|---|",
                  *(one.line() for one in found)]  # fmt: skip
    parts += ["", f"![tunnels, memory and processes over the time]({drawn})"]
    before, rest = file.read_text().split(BEGIN)
    file.write_text(before + BEGIN + "\n".join(parts) + "\n" + END + rest.split(END)[1])
