"""The harness itself, on stock httpd: what the other tests rest on must be able to fail."""

import os
import signal
from pathlib import Path

import pytest

from harness import config, http, paths, reports, steps, wait, websocket
from harness.errorlog import ErrorLog
from harness.libclient import connect


def stock(httpd, backend, mpm="event", tls=False, **kwargs):
    server = httpd(module=None, mpm=mpm, **kwargs)
    port = server.vhost(f'ProxyPass "/" "{backend.url("http")}" upgrade=websocket', tls=tls)
    return server.start(), port


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_echo_through_stock_httpd(httpd, backend, client, certificate, mpm):
    origin = backend()
    server = httpd(module=None, mpm=mpm)
    plain = server.vhost(f'ProxyPass "/" "{origin.url("http")}" upgrade=websocket')
    tls = server.vhost(f'ProxyPass "/" "{origin.url("http")}" upgrade=websocket', tls=True)
    server.start()
    assert client(plain).ask(http.handshake()).status == 101
    with connect(f"ws://127.0.0.1:{plain}/a") as ws:
        ws.send("hello")
        assert ws.recv(10) == "hello"
    for version in ("tls1.2", "tls1.3"):
        context = certificate.client_context(version)
        with connect(f"wss://localhost:{tls}/b", ssl=context) as ws:
            ws.send(b"x" * 100000)
            assert ws.recv(10) == b"x" * 100000
            spoken = ws.transport.get_extra_info("ssl_object").version()
            assert spoken == {"tls1.2": "TLSv1.2", "tls1.3": "TLSv1.3"}[version]
    assert [r.target for r in origin.requests] == ["/", "/a", "/b", "/b"]


def test_an_mpm_that_is_built_in_is_not_loaded(monkeypatch):
    """And what wants another MPM cannot run there."""
    static = paths.static_modules() | {"worker"}
    monkeypatch.setattr(paths, "static_modules", lambda: static)
    assert "mpm_" not in config.load_modules("worker", None, "proxy first", True, (), ())
    for mpm in ("event", "prefork"):
        with pytest.raises(config.NotInThisHttpd, match=f"the MPM worker built in, not {mpm}"):
            config.load_modules(mpm, None, "proxy first", True, (), ())


@pytest.mark.parametrize(("name", "error"), [("http2", config.NotInThisHttpd), ("headers", paths.Missing)])
def test_a_module_that_httpd_was_built_without(monkeypatch, name, error):
    """What is about HTTP/2 is left out there; a module that the tests rest on must be there."""
    there = paths.module_file
    monkeypatch.setattr(paths, "static_modules", lambda: frozenset({"event"}))
    monkeypatch.setattr(paths, "module_file", lambda one: None if one == name else there(one) or Path(f"mod_{one}.so"))
    with pytest.raises(paths.Missing, match=f"mod_{name}.so is not in ") as raised:
        config.load_modules("event", None, "proxy first", True, ["http2"], ())
    assert raised.type is error


def test_a_directive_that_httpd_is_too_old_for(monkeypatch, httpd):
    """httpd itself is asked for it, not for its version."""
    server = httpd(module=None, extra=["http2"])
    server.directives("H2WebSockets on")
    assert server.configtest()[0] == 0
    server.directives("# NotYet on")
    server.expect_log("never logged")
    monkeypatch.setattr(config, "NEWER", {"NotYet": "http2"})
    with pytest.raises(config.NotInThisHttpd, match="mod_http2 of this httpd has no NotYet"):
        server.configtest()
    # Of what is compiled in.
    assert config.has_directive("core", "ServerRoot")
    assert not config.has_directive("core", "NotYet")


@pytest.mark.parametrize("hook", ["pytest_runtest_setup", "pytest_runtest_call"])
def test_what_this_httpd_cannot_run_is_left_out(request, hook):
    [suite] = [plugin for plugin in request.config.pluginmanager.get_plugins() if hasattr(plugin, "clean_slate")]
    step = getattr(suite, hook)(request.node)
    next(step)
    with pytest.raises(pytest.skip.Exception, match="no such MPM"):
        step.throw(config.NotInThisHttpd("no such MPM"))


def test_backend_kinds(httpd, backend, client):
    unix, tls = backend(unix=True), backend(tls=True)
    server = httpd(module=None)
    port = server.vhost(f"""SSLProxyEngine on
SSLProxyCACertificateFile {server.certificate.cert}
SSLProxyVerify require
ProxyPass "/unix" "{unix.url("http")}" upgrade=websocket
ProxyPass "/tls" "{tls.url("https")}" upgrade=websocket""")
    server.start()
    for path in ("/unix", "/tls"):
        talk = client(port)
        assert talk.ask(http.request(path)).body == b"plain\n"
        assert talk.ask(http.handshake(path)).status == 101
        talk.echoes()


def test_half_a_log_line_is_not_read(tmp_path):
    log = ErrorLog(tmp_path / "error.log")
    with log.path.open("wb", buffering=0) as file:
        file.write(b"first\nclose code 100")
        assert log.lines() == [b"first"]
        log.open_span()
        assert log.lines() == []
        file.write(b"0\n")
        assert log.lines() == [b"close code 1000"]


def test_undeclared_log_line_is_a_failure(httpd, backend, client):
    origin = backend()
    origin.answers(b"HTTP/9.9 200 garbage\r\n\r\n", steps.close)
    server, port = stock(httpd, origin)
    assert client(port).ask(http.handshake()).status == 502
    assert any("garbage" in line for line in server.log.verdict())
    server.expect_log("garbage")
    assert server.log.verdict() == []


def test_crash_of_a_child_is_a_failure(httpd, backend):
    server, _ = stock(httpd, backend(), mpm="prefork")
    os.kill(server.children[0], signal.SIGSEGV)
    server.log.wait_for("AH00051|AH00052")
    assert any("crash" in line for line in server.log.verdict())
    # Seen; the fixture must not fail this test for it.
    server.log.open_span()


def test_another_program_in_the_place_of_httpd(monkeypatch):
    monkeypatch.setenv("WSF_HTTPD", "/opt/watched/httpd")
    assert str(paths.httpd.__wrapped__()) == "/opt/watched/httpd"


LEAK = """
=================================================================
==17==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 3 byte(s) in 1 object(s) allocated from:
    #0 0x7f01  (/opt/asan.so+0x11) (BuildId: 11)
    #1 0x7f02  ({file}+{address}) (BuildId: 22)

Indirect leak of 2 byte(s) in 1 object(s) allocated from:
    #0 0x7f01  (/tmp/mod_wsforward.so+0x11) (BuildId: 11)

SUMMARY: AddressSanitizer: 5 byte(s) leaked in 2 allocation(s).
"""


def test_what_a_sanitizer_reported_is_found(httpd, backend, monkeypatch, tmp_path):
    """Of this server's processes. Leaks that are ours, or of a connection; and whatever is no leak."""
    monkeypatch.setenv("WSF_REPORTS", str(tmp_path))
    monkeypatch.setenv("WSF_WATCHED", str(paths.httpd.__wrapped__()))
    names = {"0x1": "ap_proxy_initialize_worker", "0x2": "lost /src/lib.rs:1",
             "0x3": "<mod_wsforward::request::meeting::Meeting>::arrive"}  # fmt: skip
    monkeypatch.setattr(reports, "_learn", lambda frames: reports._names.update((frame, names.get(frame[1], "?")) for frame in frames))
    monkeypatch.setattr(reports, "_names", {})
    server, _ = stock(httpd, backend())

    def found(text):
        file = tmp_path / f"{server.directory.name}.17"
        file.write_text(text)
        (tmp_path / "wsf-another.19").write_text("of another server")
        said = reports.of_server(server)
        file.unlink()
        return said

    of_module, of_httpd = "/tmp/wsf-1/mod_wsforward.so", paths.httpd()
    assert not found("")
    assert not found(LEAK.format(file=of_httpd, address="0x2"))
    assert not found(LEAK.format(file=of_module, address="0x1"))
    [said] = found(LEAK.format(file=of_module, address="0x2"))
    assert "Direct leak of 3 byte" in said and "lost /src/lib.rs:1 (mod_wsforward.so)" in said and "asan.so" in said
    [said] = found("==17==ERROR: AddressSanitizer: heap-use-after-free")
    assert "heap-use-after-free" in said
    assert not found("==17==LeakSanitizer has encountered a fatal error.\n==17==HINT: For debugging, try verbosity=1")
    # What came to a process that then forked.
    assert found(LEAK.format(file=of_module, address="0x3"))
    (tmp_path / "noted").write_text("18 apache2 forked\n17 apache2 exit\n")
    assert found(LEAK.format(file=of_module, address="0x3"))
    (tmp_path / "noted").write_text("17 apache2 forked\n17 apache2 exit\n")
    assert not found(LEAK.format(file=of_module, address="0x3")) and found(LEAK.format(file=of_module, address="0x2"))
    start = hex(min(reports._of_connections())[0])
    assert len(found(LEAK.format(file=of_httpd, address=start))) == 1
    # The fixture looks, too.
    monkeypatch.delenv("WSF_REPORTS")


def test_configtest_and_reload(httpd, backend, client):
    origin = backend()
    server, port = stock(httpd, origin)
    assert server.configtest()[0] == 0
    before = server.children
    server.reload()
    assert client(port).ask(http.request()).status == 200
    wait.until(lambda: not set(before) & set(server.children), "the old child is gone")
    server.directives("NoSuchDirective On")
    status, text = server.configtest()
    assert status != 0 and "NoSuchDirective" in text


def test_frames_of_every_size():
    for size in (0, 1, 125, 126, 65535, 65536):
        data = bytes(range(256)) * (size // 256 + 1)
        frame = websocket.Frame(websocket.BINARY, data[:size])
        for mask in (True, False):
            raw = bytearray(frame.encode(mask))

            def read(count, raw=raw):
                part = bytes(raw[:count])
                del raw[:count]
                return part
            assert websocket.read_frame(read) == frame and not raw


def test_accept_value_of_rfc_6455():
    assert websocket.accept(websocket.KEY.encode()).decode() == websocket.ACCEPT


def test_a_bound_grows_with_the_machine_s_load(monkeypatch):
    """By what runs, and by what ran in the last minute; never below what it is on a quiet machine."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for average, running, factor in ((0.1, 1, 1), (6.0, 1, 3), (0.1, 8, 4), (500.0, 1, wait.MAX_FACTOR)):
        monkeypatch.setattr(os, "getloadavg", lambda average=average: (average, 0.0, 0.0))
        monkeypatch.setattr(wait.Path, "read_text", lambda _, running=running: f"0.1 0.1 0.1 {running}/400 1\n")
        assert wait.scaled(5) == 5 * factor * wait.SLOWNESS


def test_a_condition_has_longer_on_a_busy_machine(monkeypatch):
    looks = []

    def late():
        looks.append(True)
        return len(looks) > 50
    monkeypatch.setattr(wait, "scaled", lambda seconds: seconds)
    with pytest.raises(wait.TimedOut, match="s: it comes"):
        wait.until(late, "it comes", 0.1)
    monkeypatch.setattr(wait, "scaled", lambda seconds: seconds * 1000)
    assert wait.until(late, "it comes", 0.1)
