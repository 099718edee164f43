"""The failpoints of the source, and the table of what became of a fault at each of them.

`python -m harness.failtable FOLDER` writes the table from the outcomes in that folder.
"""

import json
import re
import sys
from pathlib import Path

from . import paths

PAGE = paths.ROOT / "docs" / "reliability.md"
CALLS = "<!-- refused calls: written by ci/failpoints -->\n", "<!-- refused calls end -->"
BEGIN, END = "<!-- failpoints: written by ci/failpoints -->\n", "<!-- failpoints end -->"
CALL = re.compile(r'failpoint::(step|check)!\("([\w.-]+)"\)')
FAULTS = ("error", "panic", "delay", "kill")


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


def table():
    """As it stands in the page."""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0]


def cell(outcome):
    """What a cell says."""
    if outcome is None:
        return ""
    lost = {"nothing": "-"}.get(outcome["lost"], outcome["lost"])
    said = ", ".join(outcome["said"])
    return f"{lost}{'; ' + said if said else ''}{outcome['more'] and ';' + outcome['more']}"


def write(folder):
    """Writes the table into the page."""
    found = {}
    for file in Path(folder).glob("*.json"):
        outcome = json.loads(file.read_text())
        found[outcome["step"], outcome["fault"]] = outcome
    known = steps()
    missing = [f"{name}-{fault}" for name in known for fault in known[name] if (name, fault) not in found]
    lines = ["| Step | " + " | ".join(FAULTS) + " |", "|---" * (len(FAULTS) + 1) + "|"]
    for name in sorted(known):
        lines.append(f"| `{name}` | " + " | ".join(cell(found.get((name, fault))) for fault in FAULTS) + " |")
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END)[1])
    write_calls({key: outcome for key, outcome in found.items() if key[0] not in known})
    return missing


def write_calls(found):
    """Writes the table of system calls that were refused."""
    if not found:
        return
    begin, end = CALLS
    lines = ["| While | Call | Error | Lost, said |", "|---|---|---|---|"]
    for (step, error), outcome in sorted(found.items()):
        act, _, call = step.partition(": ")
        lines.append(f"| {act} | `{call}` | {error} | {cell(outcome)} |")
    before, rest = PAGE.read_text().split(begin)
    PAGE.write_text(before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1])


if __name__ == "__main__":
    left = write(sys.argv[1])
    if left:
        sys.exit("no outcome of: " + " ".join(left))
