"""`pytest tests --routes-table=FILE`: the routes x MPMs that the run really went, as Markdown.

With the `=`: pytest takes a path that stands by itself for one of tests.
"""

from pathlib import Path

from .routes import ROUTES

PROPERTY = "route"


def pytest_addoption(parser):
    parser.addoption("--routes-table", metavar="FILE", help="write the table of routes x MPMs to FILE")


def pytest_configure(config):
    # Only the controller of pytest-xdist sees the reports of all workers.
    if not hasattr(config, "workerinput") and config.getoption("--routes-table"):
        config.pluginmanager.register(RoutesTable(Path(config.getoption("--routes-table")).absolute()))


class RoutesTable:
    """Collects what the tests recorded by `record_property("route", (route, client, mpm))`."""

    def __init__(self, file):
        self.file, self.passed, self.failed = file, {}, set()

    def pytest_runtest_logreport(self, report):
        for name, value in report.user_properties:
            if name != PROPERTY:
                continue
            route, client, mpm = value
            if report.failed:
                self.failed.add((route, client, mpm))
            elif report.when == "call" and report.passed:
                self.passed.setdefault(route, {}).setdefault(mpm, set()).add(client)

    def pytest_sessionfinish(self):
        mpms = ["event", "worker", "prefork"]
        lines = ["| Route | " + " | ".join(mpms) + " |", "|---" * (len(mpms) + 1) + "|"]
        for route in [route.name for route in ROUTES if route.name in self.passed]:
            ran, cells = self.passed[route], []
            for mpm in mpms:
                clients = sorted(c for c in ran.get(mpm, ()) if (route, c, mpm) not in self.failed)
                cells.append(", ".join(clients) or "-")
            lines.append(f"| {route} | " + " | ".join(cells) + " |")
        self.file.write_text("\n".join(lines) + "\n")
