"""Fixtures and hooks of the suite."""

import shutil
import tempfile
from pathlib import Path

import pytest

from harness import artefacts, config, paths, reports
from harness.backend import Backend
from harness.certs import Certificate
from harness.httpd import Httpd
from harness.probe import Probe
from harness.rawclient import RawClient

pytest_plugins = ["harness.routestable", "harness.carriers", "harness.fast"]


@pytest.fixture(scope="session")
def scratch():
    """A directory that httpd's children can read, gone after the run."""
    directory = Path(tempfile.mkdtemp(prefix="wsf-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def certificate(scratch):
    """The certificate of httpd and of the TLS back ends."""
    return Certificate.make(scratch)


@pytest.fixture(scope="session")
def module(scratch):
    """A copy of the module, so that a build during the run disturbs nothing."""
    copy = scratch / "mod_wsforward.so"
    shutil.copy(paths.module_under_test(), copy)
    copy.chmod(0o755)
    return copy


def _servers(certificate, request):
    made = []

    def make(**kwargs):
        kwargs = {"certificate": certificate} | kwargs
        if "module" not in kwargs:
            # Asked for late: what says module=None runs where the module is not built.
            kwargs["module"] = request.getfixturevalue("module")
        made.append(Httpd(**kwargs))
        return made[-1]

    return made, make


def _forget(made, request):
    wrong = []
    for server in reversed(made):
        try:
            server.stop()
            complaints = server.log.verdict()
        except Exception as error:
            complaints = [f"stop: {error!r}"]
        complaints += reports.of_server(server)
        if complaints:
            wrong += [*complaints, server.log.text()]
            artefacts.keep(server, request.node.nodeid)
        server.forget()
    if wrong:
        pytest.fail("\n".join(["at httpd's end:", *wrong]), pytrace=False)


@pytest.fixture
def httpd(certificate, request):
    """Makes servers of this test: `httpd(module=..., mpm=..., ...)`; see harness.httpd.Httpd."""
    made, make = _servers(certificate, request)
    yield make
    RawClient.close_all()
    for backend in list(Backend.living):
        backend.reset()
    busy = []
    for server in made:
        if server.running:
            try:
                server.wait_idle()
            except AssertionError as error:
                busy.append(str(error))
    _forget(made, request)
    assert not busy, busy


@pytest.fixture(scope="module")
def shared_httpd(certificate, request):
    """The same for servers that all tests of a file use."""
    made, make = _servers(certificate, request)
    yield make
    _forget(made, request)


@pytest.fixture
def backend(certificate, scratch):
    """Makes back ends of this test: `backend(tls=True, unix=True, name=...)`."""
    yield from _backends(certificate, scratch)


@pytest.fixture(scope="module")
def shared_backend(certificate, scratch):
    """The same for back ends that all tests of a file use."""
    yield from _backends(certificate, scratch)


def _backends(certificate, scratch):
    made = []

    def make(tls=False, unix=False, name="backend"):
        socket = Path(tempfile.mkdtemp(dir=scratch)) / "s" if unix else None
        if socket:
            socket.parent.chmod(0o755)
        context = certificate.server_context(tls if isinstance(tls, str) else None) if tls else None
        made.append(Backend(tls=context, unix=socket, name=name))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def client():
    """Makes raw clients that end with the test."""
    yield RawClient
    RawClient.close_all()


@pytest.fixture
def probe():
    """One tunnel that echoes all the time, in a process of its own."""
    made = Probe()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def clean_slate():
    """After each test: no client, no connection, no busy worker and no line in a log is left."""
    for server in Httpd.living:
        server.log.open_span()
    for backend in list(Backend.living):
        backend.reset()
    yield
    RawClient.close_all()
    wrong = []
    for backend in list(Backend.living):
        wrong += backend.errors
        backend.reset()
    for server in Httpd.living:
        if not server.running:
            continue
        try:
            server.wait_idle()
        except AssertionError as error:
            wrong.append(str(error))
        wrong += server.log.verdict()
    if wrong:
        pytest.fail("\n".join(["left behind:", *wrong]), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """A test that this httpd cannot run is left out, wherever that shows."""
    return (yield from _left_out())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """The same within the test."""
    return (yield from _left_out())


def _left_out():
    try:
        return (yield)
    except config.NotInThisHttpd as error:
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that failed shows what httpd logged meanwhile."""
    report = yield
    if report.failed:
        for server in Httpd.living:
            artefacts.keep(server, item.nodeid)
            report.sections.append((f"error log of {server.mpm}", server.log.text()))
    return report
