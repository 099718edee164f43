"""The failpoints of the source, and the tables of what became of a fault at each of them.

`python -m harness.failtable FOLDER` writes the tables from the outcomes in that folder.
"""

import functools
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from . import paths

PAGE = paths.ROOT / "docs" / "reliability.md"
CALL = re.compile(r'failpoint::(step|check)!\("([\w.-]+)"\)')
FAULTS = ("error", "panic", "delay", "kill")


@dataclass(frozen=True)
class Table:
    """One in the page, between two comments."""

    name: str
    head: tuple

    def _around(self):
        begin, end = f"<!-- {self.name}: written by ci/failpoints -->\n", f"<!-- {self.name} end -->"
        before, rest = PAGE.read_text().split(begin)
        text, after = rest.split(end)
        return before + begin, text, end + after

    def text(self):
        """As it stands in the page."""
        return self._around()[1]

    def write(self, rows):
        """Writes it into the page."""
        before, _, after = self._around()
        lines = [self.head, ["---"] * len(self.head), *rows]
        PAGE.write_text(before + "".join(f"| {' | '.join(line)} |\n" for line in lines) + after)


#: On event, with a plain tunnel.
STEPS = Table("failpoints", ("Step", *FAULTS))
#: With other MPMs and TLS.
ELSEWHERE = Table("failpoints elsewhere", ("Step", "MPM", "Tunnel", *FAULTS))
CALLS = Table("refused calls", ("While", "In", "Call", "Error", "Lost, said"))


@functools.cache
def steps():
    """The faults that each step can have, by its name."""
    found = {}
    for file in sorted((paths.ROOT / "src").rglob("*.rs")):
        if "failpoint" in file.parent.name:
            continue
        for kind, name in CALL.findall(file.read_text()):
            assert name not in found, f"{name} is there twice"
            found[name] = FAULTS if kind == "check" else FAULTS[1:]
    return found


def cell(outcome):
    """What a cell says."""
    if outcome is None:
        return ""
    lost = {"nothing": "-"}.get(outcome["lost"], outcome["lost"])
    said = ", ".join(outcome["said"])
    return f"{lost}{'; ' + said if said else ''}{outcome['more'] and ';' + outcome['more']}"


def write(folder):
    """Writes the tables. Returns what there was no outcome of."""
    found = {}
    for file in Path(folder).glob("*.json"):
        outcome = json.loads(file.read_text())
        found[outcome["step"], outcome["fault"]] = outcome
    known = steps()
    names = sorted({*known, *(step for step, _ in found)}, key=lambda step: step.split("@"))
    rows, elsewhere, calls, missing = [], [], [], []
    for step in names:
        name, *more = step.split("@")
        if name in known:
            outcomes = [found.get((step, fault)) for fault in FAULTS]
            missing += [f"{step}-{fault}" for fault in known[name] if (step, fault) not in found]
            (elsewhere if more else rows).append([f"`{name}`", *more, *map(cell, outcomes)])
        else:
            where, call = more
            calls += [[name, where, f"`{call}`", error, cell(outcome)]
                      for (of, error), outcome in sorted(found.items()) if of == step]
    STEPS.write(rows)
    ELSEWHERE.write(elsewhere)
    CALLS.write(calls)
    return missing


if __name__ == "__main__":
    left = write(sys.argv[1])
    if left:
        sys.exit("no outcome of: " + " ".join(left))
