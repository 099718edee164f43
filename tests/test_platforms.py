"""The table of platforms is what runs wrote."""

import re

from harness import paths
from platforms import table

PAGE = (paths.ROOT / "docs" / "platforms.md").read_text()
SCRIPT = (paths.ROOT / "ci" / "platforms").read_text()


def test_rows_are_those_of_runs():
    """Of platforms that ci/platforms knows, with the last line of pytest or cargo."""
    [pattern] = re.findall(r"^    (bullseye \|.*)\) names\+=", SCRIPT, re.M)
    known = [name.strip() for name in pattern.split("|")]
    assert table.rows(PAGE)
    for name, (_, date, _, _, _, _, result) in table.rows(PAGE).items():
        assert name in known or ("httpd-2.4.*" in known and name.startswith("httpd-2.4.")), name
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", date)
        assert re.fullmatch(r"(\d+ failed, )?\d+ passed(, \d+ (skipped|failed|errors?|rerun))*", result), (name, result)


def test_row_takes_the_place_of_an_earlier_one():
    page = f"# A\n\n{table.HEAD}\nafter | it\n"
    cells = ["2026-11-29", "2.4.62", "3.0", "glibc", "all", "1 passed"]
    page = table.with_row(page, "b", *cells)
    page = table.with_row(page, "a", *cells)
    page = table.with_row(page, "b", *cells[:-1], "2 failed |\n1 passed")
    rows = "".join(f"| {name} | {' | '.join(cells[:-1])} | {result} |\n" for name, result in
                   (("a", "1 passed"), ("b", "2 failed / 1 passed")))  # fmt: skip
    assert page == f"# A\n\n{table.HEAD}{rows}\nafter | it\n"
    assert [*table.rows(page)] == ["a", "b"]
