"""`pytest --fast`: the short answer, and at its end what it left out.

It runs every test once, on event, but for those that are marked `slow`. Of a test with many sets of
parameters it takes one for each carrier: the first one, in every second of them the last one. Most begin
with plain connections and end with TLS 1.3 on both sides.

A test is marked `slow` if it takes more than some two seconds even so:

    @pytest.mark.slow
    def test_of_something_that_takes_its_time(...):
"""

from collections import Counter

import pytest

from . import config

#: What is run of the MPMs.
MPM = "event"
OTHER_MPMS = {*config.MPM} - {MPM}
#: Folders whose tests need applications and a browser.
APPLICATIONS = ("novnc", "recipes")

left_out = Counter()


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="one quick path for everything, on event; see harness/fast.py")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than some two seconds; `--fast` leaves it out")


def pytest_ignore_collect(collection_path, config):
    # What they import may not be there.
    return True if config.getoption("--fast") and collection_path.name in APPLICATIONS else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if not config.getoption("--fast"):
        return
    reasons = {item: reason for item in items if (reason := _reason(item))}
    groups = {}
    for item in items:
        if item not in reasons:
            groups.setdefault((item.path, item.originalname, _carrier(item)), []).append(item)
    for number, group in enumerate(groups.values()):
        left = group[1:] if number % 2 == 0 else group[:-1]
        reasons |= dict.fromkeys(left, "further parameters of tests that ran")
    left_out.update(reasons.values())
    config.hook.pytest_deselected(items=[*reasons])
    items[:] = [item for item in items if item not in reasons]


def _reason(item):
    """Why a test is not of the short answer, "" if it is."""
    if item.get_closest_marker("slow"):
        return "slow tests"
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    mpms = [getattr(value, "mpm", value) for value in values]
    return f"on other MPMs than {MPM}" if any(isinstance(mpm, str) and mpm in OTHER_MPMS for mpm in mpms) else ""


def _carrier(item):
    return item.callspec.params.get("carrier") if hasattr(item, "callspec") else None


def pytest_sessionfinish(session):
    # Of pytest-xdist's processes it is the workers that collect, each all of the tests.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    left_out.update({} if left_out else getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter):
    if terminalreporter.config.getoption("--fast"):
        terminalreporter.section("--fast left out")
        for reason, count in sorted(left_out.items()):
            terminalreporter.write_line(f"{count:5} {reason}")
        for folder in APPLICATIONS:
            terminalreporter.write_line(f"  all tests/{folder}")
