"""How the source is laid out: the files of each crate know each other in one direction only."""

import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = sorted([*(ROOT / "src").rglob("lib.rs"), ROOT / "bench" / "main.rs"])
#: What is code in a file: no comments, no strings, no unit tests, which stand last.
NO_CODE = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|#\[cfg\(test\)\]\s*(?:pub\s+)?mod\s+\w+\s*\{.*', re.S)
PATH = re.compile(r"\b(crate|super|self)::((?:\w+::)*)(\w+|\{[^;]*?\}\s*;)")


def modules(crate):
    """The files of a crate, by the paths of their modules; those of crates within it are not its own."""
    folder = crate.parent
    inner = [root.parent for root in ROOTS if root.parent != folder and folder in root.parents]
    found = {}
    for file in folder.rglob("*.rs"):
        parts = file.relative_to(folder).with_suffix("").parts
        if file != crate and not {"tests", "benches"}.intersection(parts) and not any(one in file.parents for one in inner):
            found["::".join(parts[:-1] if parts[-1] == "mod" else parts)] = file
    return found


def expanded(path):
    """`a::{b, c::{d}}` as `a::b` and `a::c::d`."""
    head, brace, rest = path.partition("{")
    if not brace:
        return [head]
    names, depth, start = [], 0, 0
    rest = rest[:rest.rindex("}")] + ","
    for at, sign in enumerate(rest):
        depth += (sign == "{") - (sign == "}")
        if sign == "," and not depth:
            names += expanded(rest[start:at].strip())
            start = at + 1
    return [head + name for name in names if name]


def used(text, module, known):
    """The modules that a file names."""
    found = set()
    for start, middle, last in PATH.findall(NO_CODE.sub('""', text)):
        above = module.split("::")[:-1] if start == "super" else module.split("::") if start == "self" else []
        for path in expanded(middle + last.rstrip("; \n")):
            parts = [*above, *path.split("::")]
            while "super" in parts:
                at = parts.index("super")
                del parts[max(0, at - 1):at + 1]
            prefixes = ("::".join(parts[:length]) for length in range(len(parts), 0, -1))
            found.update([one for one in prefixes if one in known][:1])
    return found - {module}


def graph(crate):
    """Which modules of a crate name which."""
    known = modules(crate)
    return {module: used(file.read_text(), module, known) for module, file in known.items()}


@pytest.mark.parametrize("crate", ROOTS, ids=lambda root: str(root.relative_to(ROOT)))
def test_no_files_know_each_other(crate):
    try:
        graphlib.TopologicalSorter(graph(crate)).prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


def test_what_a_file_names_is_seen():
    """Among it what stands between braces, and above."""
    text = 'use crate::a::{self, b::{C, D}};\nuse super::e::F;\n// crate::g\nlet it = crate::h::i("crate::j");'
    known = {"a", "a::b", "e", "x::e", "g", "h", "j", "x::y"}
    assert used(text, "x::y", known) == {"a", "a::b", "x::e", "h"}
    assert used("use super::super::e;", "x::y", known) == {"e"}
