"""The table of docs/platforms.md: one row for each platform, of its last run.

table.py PAGE PLATFORM DATE HTTPD OPENSSL LIBC WHAT RESULT: ci/platforms does that.
"""

import re
import sys
from pathlib import Path

COLUMNS = ("Platform", "Date", "httpd", "OpenSSL", "C library", "What ran", "Result")
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"


def _split(page):
    """What is before the rows, the rows, what is after them."""
    before, head, rest = page.partition(HEAD)
    table = re.match(r"(\|.*\n)*", rest)[0]
    return before + head, table.splitlines(), rest[len(table):]


def rows(page):
    """The cells of each row, by its platform."""
    found = (re.split(r" *\| *", line)[1:-1] for line in _split(page)[1])
    return {cells[0]: cells for cells in found}


def with_row(page, *cells):
    """The page with this row in the place of an earlier one of its platform, in the order of their names."""
    assert len(cells) == len(COLUMNS), cells
    # No cell ends another one.
    cells = [re.sub(r"\s+", " ", cell).replace("|", "/") for cell in cells]
    before, _, after = _split(page)
    table = (f"| {' | '.join(row)} |\n" for _, row in sorted({**rows(page), cells[0]: cells}.items()))
    return before + "".join(table) + after


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_row(page.read_text(), *sys.argv[2:]))
