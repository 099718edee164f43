"""The table of routes x MPMs in docs/routes.md, compared with what the run really went.

`pytest tests --routes-table=FILE` writes the table of the run to FILE. (With the `=`: pytest takes a
path that stands by itself for one of tests.)
"""

from pathlib import Path

import pytest

from . import config, paths
from .routes import ROUTES

PROPERTY = "route"
DOCUMENT = paths.ROOT / "docs" / "routes.md"
MPMS = [*config.MPM]
CLIENTS = ["plain", "tls1.2", "tls1.3"]


def pytest_addoption(parser):
    parser.addoption("--routes-table", metavar="FILE", help="write the table of routes x MPMs to FILE")


def pytest_configure(config):
    # Only the controller of pytest-xdist sees the reports of all workers.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(RoutesTable(config.getoption("--routes-table")))


def table(passed):
    """The Markdown of these (route, client, MPM)."""
    lines = ["| Route | " + " | ".join(MPMS) + " |", "|---" * (len(MPMS) + 1) + "|"]
    for route in dict.fromkeys(route.name for route in ROUTES):
        cells = [", ".join(c for c in CLIENTS if (route, c, mpm) in passed) or "-" for mpm in MPMS]
        if set(cells) != {"-"}:
            lines.append(f"| {route} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def documented():
    """The (route, client, MPM) of the document."""
    rows = [line.strip("| \n").split(" | ") for line in DOCUMENT.read_text().splitlines()[2:]]
    return {(route, client, mpm) for route, *cells in rows for mpm, cell in zip(MPMS, cells, strict=True)
            for client in cell.split(", ") if client != "-"}  # fmt: skip


class RoutesTable:
    """Collects what the tests recorded by `record_property("route", (route, client, mpm))`."""

    def __init__(self, file=None):
        self.file = Path(file).absolute() if file else None
        self.passed, self.failed, self.complaint = set(), set(), ""

    def pytest_runtest_logreport(self, report):
        for name, value in report.user_properties:
            if name == PROPERTY and report.failed:
                self.failed.add(tuple(value))
            elif name == PROPERTY and report.when == "call" and report.passed:
                self.passed.add(tuple(value))

    def verdict(self):
        """How the document differs from this run, "" if it does not. A run of some of the tests shows
        what is missing in the document; one of all, what is too much in it as well."""
        went, told = self.passed - self.failed, documented()
        of_all = len(self.passed | self.failed) == len(ROUTES) * len(MPMS) * len(CLIENTS)
        wrong = [f"went and not told: {', '.join(way)}" for way in sorted(went - told)]
        if of_all:
            wrong += [f"told and not gone: {', '.join(way)}" for way in sorted(told - went)]
            if not wrong and DOCUMENT.read_text() != table(went):
                wrong.append("another order or form than of --routes-table")
        return "\n".join(wrong)

    def pytest_sessionfinish(self, session):
        if self.file:
            self.file.write_text(table(self.passed - self.failed))
        self.complaint = self.verdict() if self.passed else ""
        if self.complaint and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if self.complaint:
            terminalreporter.section(f"{DOCUMENT.relative_to(paths.ROOT)} is not of this run: --routes-table=docs/routes.md")
            terminalreporter.write_line(self.complaint)
