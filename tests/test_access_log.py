"""The access log has the line of a relayed tunnel at its end: in the administrator's format, with the tunnel's bytes and time."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from harness import cmodule, http, procfs, relayed, statuspage, steps, wait, websocket
from harness.accesslog import BY, FORMAT, WS, close, directives, frame, lines, tunnel
from harness.config import MPM
from harness.draining import site  # noqa: F401


@pytest.mark.parametrize("mpm", MPM)
def test_one_line_at_the_end(site, client, mpm):
    made = site(mpm, directives, extra=["logio"])
    server = made.server
    talk = client(made.plain)
    tunnel(talk, "/one")
    relayed.wait_figure(server, "Tunnels", 1)
    assert lines(server, request="/one") == []
    close(talk, 4000)
    [line] = lines(server, count=1, request="/one")
    [end] = relayed.ends(server)
    assert line["request"] == "GET /one HTTP/1.1" and line["status"] == "101"
    assert (int(line["bytes-up"]), int(line["bytes-down"])) == (end.up, end.down)
    assert abs(float(line["duration"]) - end.seconds) < 0.002
    assert line["by"] == BY[end.by] and line["reason"] == end.why and line["id"] == end.id
    assert line["backend"] == end.origin and line["code-client"] == "4000"
    assert line["messages-up"] == "3"
    asked = len(http.handshake("/one"))
    assert int(line["I"]) == asked + end.up
    assert int(line["S"]) == int(line["I"]) + int(line["O"])
    micros = int(line["D"])
    assert micros >= end.seconds * 1e6 - 1000 and line["us"] == line["D"]
    assert int(line["ms"]) == micros // 1000 and int(line["T"]) == micros // 1000000
    # One, and no more.
    server.wait_idle()
    assert len(lines(server, request="/one")) == 1


def test_other_requests_and_conditions_are_as_with_stock(httpd, backend, client):
    """The same pages with and without the module leave the same lines, but for their times; a tunnel has the
    line that stock has, in the logs whose condition held."""
    formats = {"io.log": "%a %r %>s %b %B %I %O %S %X %k", "always.log": "%m %U %>s", "when.log": "%U %>s"}
    left = {}
    for name in ("ours", "stock"):
        origin = backend()
        server = httpd(extra=["logio"]) if name == "ours" else httpd(extra=["logio"], module=None)
        server.page("page", "a page\n")
        on = "WSForward On\nWSForwardRelay On" if name == "ours" else ""
        logs = "".join(
            f'CustomLog "{server.directory}/{file}" "{format}"{" env=wanted" if file == "when.log" else ""}\n'
            for file, format in formats.items())  # fmt: skip
        port = server.vhost(f'''{on}
SetEnvIf Request_URI "wanted" wanted
{logs}
ProxyPass "/page" !
ProxyPass "/" "{origin.url("http")}" upgrade=websocket''')
        server.start()
        for path in ("/page", "/page/none", "/page/wanted"):
            talk = client(port)
            talk.ask(http.request(path))
            talk.close()
            server.wait_idle()
        for path in ("/tunnel", "/wanted"):
            talk = client(port)
            tunnel(talk, path)
            close(talk)
            last = server.directory / ("when.log" if path == "/wanted" else "always.log")
            wait.until(lambda path=path, last=last: f"{path} 101" in last.read_text(), "the lines of the tunnel")
            server.wait_idle()
        left[name] = {file: (server.directory / file).read_text().splitlines() for file in formats}
    # mod_log_config says of a tunnel in its thread that the client is gone.
    bare = {name: {file: [re.sub(r" [X+-] (\d+)$", r" \1", line) for line in lines] for file, lines in files.items()}
            for name, files in left.items()}  # fmt: skip
    assert bare["ours"] == bare["stock"]
    assert len(left["ours"]["when.log"]) == 2


@pytest.mark.parametrize("mpm", MPM)
def test_line_comes_after_a_reload_in_the_new_file(site, client, mpm):
    """A drain process sends it: to the new file of a log that was rotated."""
    made = site(mpm, directives, extra=["logio"])
    server = made.server
    talk = client(made.plain)
    tunnel(talk, "/kept")
    relayed.wait_figure(server, "Tunnels", 1)
    for count in range(2):
        if (server.directory / "ws.log").exists():
            os.rename(server.directory / "ws.log", server.directory / f"ws.log.{count}")
        server.reload()
        wait.until(made.drains, "a drain process")
        talk.echoes(frame(b"still here"))

    def holders():
        """Who has an old file open: while the tunnel is."""
        return [pid for pid in (server.pid, *server.children, *made.drains())
                if any("ws.log." in name for name in procfs.descriptors(pid))]  # fmt: skip
    wait.until(lambda: not holders(), holders)
    relayed.wait_figure(server, "Tunnels", 1)
    close(talk)
    [line] = lines(server, count=1, request="/kept")
    [end] = relayed.ends(server)
    assert int(line["bytes-up"]) == end.up and line["code-client"] == "1000"
    assert int(line["I"]) == len(http.handshake("/kept")) + end.up
    wait.until(lambda: not made.drains(), "no drain process is left")
    for old in server.directory.glob("ws.log.*"):
        assert "/kept" not in old.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("mpm", MPM)
def test_lines_of_ten_generations(site, client, mpm):
    """Each reload leaves a tunnel in a drain process: each has its one line at its end, whichever child is there then."""
    made = site(mpm, directives)
    server, talks = made.server, []
    for number in range(10):
        talks.append(client(made.plain))
        tunnel(talks[-1], f"/generation{number}/")
        relayed.wait_figure(server, "Tunnels", number + 1)
        server.reload()
        # With prefork one process collects them.
        least = 1 if mpm == "prefork" else number + 1
        wait.until(lambda least=least: len(made.drains()) >= least, "the drain processes")
        relayed.wait_figure(server, "Tunnels", number + 1)
    for number, talk in enumerate(talks):
        talk.echoes(frame(b"still here"))
        close(talk)
        [line] = lines(server, count=1, request=f"/generation{number}/")
        # And the Close frame, with a code.
        assert (line["messages-up"], line["code-client"], line["reason"]) == ("4", "1000", "closed")
    relayed.wait_figure(server, "Tunnels", 0)
    wait.until(lambda: not made.drains(), "no drain process is left")
    assert len(lines(server, request="/generation")) == len(talks)
    assert relayed.figures(server)["AccessLinesLost"] == 0


def test_transfer_log_and_global_log(site, client):
    """Both have the line, before and after a reload, beside the CustomLog of the virtual host."""
    def more(server):
        escaped = FORMAT.replace('"', '\\"')
        return directives(server, f'GlobalLog global.log "{escaped}"\nLogFormat "{escaped}"')
    made = site("event", more, vhost="TransferLog transfer.log\nCustomLog own.log ws")
    server = made.server
    logs = ("global.log", "transfer.log", "own.log")
    talks = [client(made.plain) for _ in range(2)]
    for number, talk in enumerate(talks):
        tunnel(talk, f"/all{number}")
    relayed.wait_figure(server, "Tunnels", 2)
    assert not any(lines(server, file, request="/all") for file in logs)
    talks[0].close()
    found = [lines(server, file, count=1, request="/all0") for file in logs]
    assert found[0] == found[1] == found[2] and found[0][0]["reason"] != "-"
    server.reload()
    wait.until(made.drains, "a drain process")
    talks[1].close()
    found = [lines(server, file, count=1, request="/all1") for file in logs]
    assert found[0] == found[1] == found[2] and len(found[0]) == 1
    # That of the server is not the virtual host's.
    assert lines(server, request="/all") == []


def test_full_disk_is_said_once(site, client):
    """The tunnels go on, and the other logs have their lines."""
    made = site("event", lambda server: directives(server) + "\nCustomLog /dev/full ws")
    server = made.server
    server.log.expect("WSF0132: .*/dev/full.*No space left on device")
    talks = [client(made.plain) for _ in range(3)]
    for number, talk in enumerate(talks):
        tunnel(talk, f"/full{number}")
    relayed.wait_figure(server, "Tunnels", 3)
    for talk in talks:
        talk.echoes(frame(b"hello"))
        talk.close()
    assert len(lines(server, count=3, request="/full")) == 3
    wait.until(lambda: relayed.figures(server)["AccessLinesLost"] == 3, "three lines are counted as lost")
    assert len(server.log.wait_for("WSF0132")) == 1
    # Lines of a drain process are a child's to write, and to say.
    server.log.expect("WSF0132", certain=False)
    last = client(made.plain)
    tunnel(last, "/last")
    relayed.wait_figure(server, "Tunnels", 1)
    server.reload()
    wait.until(made.drains, "a drain process")
    last.close()
    lines(server, count=1, request="/last")
    wait.until(lambda: relayed.figures(server)["AccessLinesLost"] == 4, "and the fourth")


def test_log_that_is_gone_is_said_once(site, client):
    made = site("event", directives)
    server = made.server
    talks = [client(made.plain) for _ in range(3)]
    for talk in talks:
        tunnel(talk, "/gone")
    relayed.wait_figure(server, "Tunnels", 3)
    at = server._directives.index(made.directives)
    server._directives[at] = "LogLevel wsforward:info"
    server.reload()
    wait.until(made.drains, "a drain process")
    server.log.expect("WSF0131: .*ws.log, which is not in the configuration any more")
    for talk in talks:
        talk.close()
    wait.until(lambda: relayed.figures(server)["AccessLinesLost"] == 3, "three lines are counted as lost")
    assert len(server.log.wait_for("WSF0131")) == 1


@pytest.mark.parametrize("mpm", MPM)
def test_lines_of_a_stop_are_written(site, client, mpm):
    """By the child, and by the parent for drain processes."""
    made = site(mpm, directives)
    server = made.server
    old = client(made.plain)
    tunnel(old, "/old")
    relayed.wait_figure(server, "Tunnels", 1)
    server.reload()
    wait.until(made.drains, "a drain process")
    young = client(made.plain)
    tunnel(young, "/young")
    relayed.wait_figure(server, "Tunnels", 2)
    server.stop()
    assert {line["request"]: (line["by"], line["reason"]) for line in lines(server)} == {
        "GET /old HTTP/1.1": ("server", "stopped"), "GET /young HTTP/1.1": ("server", "stopped")}  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), [
    ("start", ["-"]), ("both", ["-", "closed"]), ("end", ["closed"])])  # fmt: skip
def test_start_and_both(site, client, value, expected):
    made = site("event", directives, vhost=f"WSForwardAccessLog {value}", extra=["logio"])
    talk = client(made.plain)
    tunnel(talk)
    close(talk)
    [end] = relayed.ends(made.server)
    found = lines(made.server, count=len(expected), request="GET / ")
    assert [(line["by"], line["reason"]) for line in found] == [
        ("-" if reason == "-" else BY[end.by], reason) for reason in expected]  # fmt: skip
    if value != "end":
        assert int(found[0]["I"]) == len(http.handshake()) and found[0]["id"] != "-" != found[0]["backend"]


@pytest.mark.parametrize("mpm", MPM)
def test_lines_of_a_tunnel_that_goes_on(site, client, mpm):
    """One now and then, with what there is so far; in a drain process too. The last is that of the end."""
    made = site(mpm, directives, vhost="WSForwardAccessLogInterval 1s", extra=["logio"])
    server = made.server
    talk = client(made.plain)
    tunnel(talk, "/on")
    first = lines(server, count=2, request="/on")
    server.reload()
    wait.until(made.drains, "a drain process")
    talk.echoes(frame(b"after it"))
    wait.until(lambda: lines(server, count=1, request="/on")[-1]["messages-up"] == "4", "a line of the drain process")
    close(talk)
    [end] = relayed.ends(server)
    *rows, last = wait.until(
        lambda: (found := lines(server, count=3, request="/on"))[-1]["reason"] != "-" and found, "the line at the end")
    assert {row["by"] + row["reason"] + row["code-client"] + row["code-backend"] for row in rows} == {"----"}
    assert (last["code-client"], last["reason"], int(last["bytes-up"])) == ("1000", end.why, end.up)
    assert {row["id"] for row in (*rows, last)} == {end.id} and {row["status"] for row in rows} == {"101"}
    assert (first[0]["messages-up"], int(first[0]["bytes-up"])) == ("3", 3 * (6 + len(frame(b"hello"))))
    asked = len(http.handshake("/on"))
    assert all(int(row["I"]) == asked + int(row["bytes-up"]) for row in (*rows, last))
    # At multiples of the interval from the beginning on, wherever it is then.
    seconds = [float(row["duration"]) for row in rows]
    assert seconds == sorted(seconds) and seconds[0] >= 1
    assert len(seconds) <= float(last["duration"]) and float(last["duration"]) >= seconds[-1]


def test_no_line_in_between_where_there_is_none_at_the_end(site, client):
    """Nor by default, nor of a tunnel in its thread."""
    made = site("event", directives, vhost="""WSForwardAccessLogInterval 1s
<Location "/start">
    WSForwardAccessLog start
</Location>
<Location "/never">
    WSForwardAccessLogInterval 0
</Location>
<Location "/thread">
    WSForwardRelay Off
</Location>""")
    talks = {path: client(made.plain) for path in ("/start", "/never", "/thread", "/on")}
    for path, talk in talks.items():
        tunnel(talk, path)
    lines(made.server, count=2, request="/on")
    assert [len(lines(made.server, request=path)) for path in ("/start", "/never", "/thread")] == [1, 0, 0]


def test_items_of_a_tunnel_in_its_thread_and_of_none(site, client):
    made = site("event", directives, vhost="WSForwardRelay Off")
    made.server.page("page", "a page")
    talk = client(made.plain)
    tunnel(talk, "/thread")
    talk.close()
    [line] = lines(made.server, count=1, request="/thread")
    [end] = relayed.ends(made.server)
    assert (int(line["bytes-up"]), line["by"], line["id"]) == (end.up, BY[end.by], end.id)
    assert line["messages-up"] == "-" == line["code-client"]
    assert client(made.plain).ask(http.request("/plain")).status in (200, 404, 426)
    [line] = lines(made.server, count=1, request="/plain")
    assert {line[name] for name in WS} == {"-"}


@pytest.mark.parametrize("kind", ["file", "buffered", "pipe"])
def test_long_lines_stay_whole(site, client, kind):
    """Longer than PIPE_BUF, of many tunnels that end together, after a reload too."""
    def more(server):
        if kind == "pipe":
            return directives(server).replace(f'CustomLog "{server.directory}', f'CustomLog "|$/bin/cat >>{server.directory}')
        return ("BufferedLogs On\n" if kind == "buffered" else "") + directives(server)
    made = site("event", more)
    server = made.server
    # What httpd says of programs behind a pipe, at a reload.
    server.log.expect("AH00488", certain=False)
    talks = [client(made.plain) for _ in range(20)]
    for number, talk in enumerate(talks):
        tunnel(talk, f"/long{number}/" + "x" * 6000)
    relayed.wait_figure(server, "Tunnels", len(talks))
    for talk in talks[:10]:
        talk.close()
    lines(server, count=10, request="/long")
    server.reload()
    wait.until(made.drains, "a drain process")
    for talk in talks[10:]:
        talk.close()
    found = lines(server, count=20, request="/long")
    assert sorted(len(line["request"]) for line in found) == sorted(
        len(f"GET /long{number}/ HTTP/1.1") + 6000 for number in range(20))  # fmt: skip


def test_piped_log(site, client):
    """The program gets each line; after a reload the new one does."""
    def more(server):
        return directives(server).replace(f'CustomLog "{server.directory}', f'CustomLog "|$/bin/cat >>{server.directory}')
    made = site("event", more)
    server = made.server
    # What httpd says of programs behind a pipe, at a reload.
    server.log.expect("AH00488", certain=False)
    talks = [client(made.plain) for _ in range(2)]
    for number, talk in enumerate(talks):
        tunnel(talk, f"/piped{number}")
    relayed.wait_figure(server, "Tunnels", 2)
    talks[0].close()
    lines(server, count=1, request="/piped0")
    server.reload()
    wait.until(made.drains, "a drain process")
    talks[1].close()
    lines(server, count=1, request="/piped1")


@pytest.mark.parametrize("mpm", MPM)
def test_program_of_a_piped_log_dies(site, client, mpm):
    """httpd starts another one: that has the lines of all tunnels, those that ended while there was none too."""
    def more(server):
        program = server.directory / "program"
        program.write_text('#!/bin/sh\nexec cat >>"$1"\n')
        program.chmod(0o755)
        log = f'CustomLog "{server.directory}/ws.log"'
        return directives(server).replace(log, f'CustomLog "|{program} {server.directory}/ws.log"')
    made = site(mpm, more)
    server = made.server

    def programs():
        return [pid for pid in procfs.children(server.pid) if procfs.command(pid)[:1] == [b"cat"]]
    server.log.expect("AH00106|AH00108|AH00488", certain=False)
    talks = [client(made.plain) for _ in range(20)]
    for number, talk in enumerate(talks):
        tunnel(talk, f"/piped{number}/")
    relayed.wait_figure(server, "Tunnels", len(talks))
    for part, count in ((talks[:10], 10), (talks[10:], 20)):
        [program] = wait.until(programs, "the program")
        # The parent would start another one at once.
        os.kill(server.pid, signal.SIGSTOP)
        try:
            os.kill(program, signal.SIGKILL)
            wait.until(lambda program=program: not procfs.command(program), "it is gone")
            for talk in part:
                talk.close()
            relayed.ends(server, count)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        found = lines(server, count=count, request="/piped")
    assert len({line["request"] for line in found}) == len(found) == len(talks)
    assert relayed.figures(server)["AccessLinesLost"] == 0


def test_value_that_is_not_allowed(httpd):
    server = httpd()
    server.directives("WSForwardAccessLog later")
    status, text = server.configtest()
    assert status != 0 and 'WSForwardAccessLog: "later" is not allowed, expected end, start or both' in text


@pytest.mark.parametrize("tls", [False, True])
def test_bytes_that_came_with_the_handshake_count_once(site, client, certificate, tls):
    made = site("event", directives, extra=["logio"])
    talk = client(made.tls, certificate.client_context("tls1.3")) if tls else client(made.plain)
    early = frame(b"early")
    talk.send(http.handshake("/early") + early)
    assert talk.read_response().status == 101
    assert talk.read_exactly(7) == b"\x81\x05early"
    close(talk)
    [line] = lines(made.server, count=1, request="/early")
    [end] = relayed.ends(made.server)
    assert int(line["bytes-up"]) == end.up == len(early) + 8
    if not tls:
        assert int(line["I"]) == len(http.handshake("/early")) + end.up
    else:
        # Of TLS the handshake counts as it went over the wire, and the tunnel as it was decrypted.
        assert int(line["I"]) > len(http.handshake("/early")) + end.up


def test_modules_with_logs_of_their_own(site, client):
    """They see the request end when the tunnel leaves its thread; the line of the access log is not theirs."""
    def more(server):
        return directives(server) + f"\nForensicLog {server.directory}/forensic.log\nLogLevel log_debug:info"
    made = site("event", more, extra=["log_debug", "log_forensic"],
                vhost='LogMessage "debug of %{REQUEST_URI}" hook=log_transaction "expr=%{REQUEST_URI} == \'/own\'"')  # fmt: skip
    server, talk = made.server, client(made.plain)
    tunnel(talk, "/own")
    relayed.wait_figure(server, "Tunnels", 1)
    server.log.wait_for("debug of /own")
    forensic = server.directory / "forensic.log"
    [id] = re.findall(r"(?m)^\+([^|]+)\|GET /own ", forensic.read_text())
    wait.until(lambda: f"\n-{id}\n" in forensic.read_text(), "its end")
    assert lines(server, request="/own") == []
    close(talk)
    assert len(lines(server, count=1, request="/own")) == 1
    assert len(server.log.matching("debug of /own")) == 1 and forensic.read_text().count(f"-{id}\n") == 1


def test_another_writer_of_logs(httpd, backend, client, scratch):
    """Its lines come when the tunnel leaves its thread, through it, and the error log says so."""
    origin, server = backend(), httpd()
    server.log.expect("WSF0133")
    server.directives(cmodule.build("foreign_writer", scratch) + "\n" + directives(server))
    port = server.vhost(f'WSForward On\nWSForwardRelay On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    talk = client(port)
    tunnel(talk, "/foreign")
    file = server.directory / "ws.log"
    wait.until(lambda: file.exists() and "foreign line GET /foreign HTTP/1.1|101|" in file.read_text(), "the line")
    talk.close()
    relayed.ends(server)
    assert file.read_text().count("/foreign") == 1


class Still:
    """A log that is a pipe from which nobody reads yet."""

    def __init__(self, path):
        os.mkfifo(path, 0o666)
        path.chmod(0o666)
        #: Without it httpd would wait for a reader when it opens the log.
        self.fd, self.lines, self.lengths = os.open(path, os.O_RDWR), 0, set()
        self._rest = b""

    def read(self):
        """Reads on, and says how many lines have come."""
        os.set_blocking(self.fd, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                *lines, self._rest = (self._rest + os.read(self.fd, 1 << 16)).split(b"\n")
                self.lines += len(lines)
                self.lengths.update(map(len, lines))
        return self.lines

    def is_whole(self):
        """No line was begun and not ended."""
        return not self._rest


def lost_said(server):
    """How many lines WSF0130 says were lost."""
    return sum(int(re.search(rb"WSF0130: (\d+) lines", line)[1]) for line in server.log.matching("WSF0130"))


#: The longest line that a tunnel keeps, nearly: a path, twice.
PATH = "/" + "x" * 7900
LONG = len(f"GET {PATH} HTTP/1.1") * 2


def long_lines(file):
    return f'CustomLog "{file}" "%r%r"\n'


def many(client, made, count):
    """So many tunnels with a long line, one behind the other: no connection waits for a worker."""
    talks = []
    for _ in range(count):
        talks.append(client(made.plain))
        assert talks[-1].ask(http.handshake(PATH)).status == 101
    return talks


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_log_that_stands_still_loses_lines_beyond_the_bound_and_says_so(site, client):
    """Meanwhile the tunnels and the other logs' requests go on, and what was kept is written once the log moves."""
    # The bound is for one relay thread: 32 MiB.
    still, bound = [], (32 << 20) // LONG

    def more(server):
        still.append(Still(server.directory / "still"))
        return directives(server)
    count = bound + 100
    made = site("event", more, vhost=lambda server: long_lines(server.directory / "still"))
    server = made.server
    server.log.expect("WSF0130")
    talks = many(client, made, count + 1)
    relayed.wait_figure(server, "Tunnels", len(talks))
    for talk in talks[:count]:
        talk.close()
    relayed.wait_figure(server, "Tunnels", 1)
    # While it stands still.
    wait.until(lambda: relayed.figures(server)["AccessLinesLost"] > 0, "lines are lost")
    server.log.wait_for("WSF0130")
    talks[count].echoes()
    lost = relayed.figures(server)["AccessLinesLost"]
    # With their logs' names.
    assert count - lost >= bound * 0.95
    # Each look takes what a pipe holds: 32 MiB want many.
    wait.until(lambda: still[0].read() == count - lost, "the others are written", every=0)
    assert still[0].lengths == {LONG}
    talks[count].close()
    wait.until(lambda: still[0].read() == count + 1 - lost, "it goes on")
    assert relayed.figures(server)["AccessLinesLost"] == lost
    # Of those after the first one not at once, but at the latest now.
    server.stop()
    assert lost_said(server) == lost
    os.close(still[0].fd)


def test_stop_cuts_no_line_of_a_log_that_stands_still(site, client):
    """The parent writes those of drain processes, and does not wait: what does not fit as a whole is left."""
    still, count = [], 20

    def more(server):
        still.append(Still(server.directory / "still"))
        return directives(server)
    made = site("event", more, vhost=lambda server: f'CustomLog "{server.directory}/still" "%U|%U"')
    server = made.server
    server.log.expect("WSF0132")
    talks = [client(made.plain) for _ in range(count)]
    path = PATH[:5000]
    for talk in talks:
        tunnel(talk, path)
    relayed.wait_figure(server, "Tunnels", count)
    server.reload()
    wait.until(made.drains, "a drain process")
    server.stop()
    assert 1 < still[0].read() < count
    assert still[0].lengths == {2 * len(path) + 1} and still[0].is_whole()
    os.close(still[0].fd)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_drain_process_loses_lines_that_no_child_takes_and_says_so(site, client):
    """The bound of what waits: 8 MiB, and what is in the way to a child."""
    count = (16 << 20) // LONG
    made = site("event", vhost=lambda server: long_lines(server.directory / "long.log"))
    server = made.server
    server.log.expect("WSF0130")
    talks = many(client, made, count)
    relayed.wait_figure(server, "Tunnels", count)
    server.reload()
    wait.until(made.drains, "a drain process")
    children = server.children
    for child in children:
        os.kill(child, signal.SIGSTOP)
    try:
        for talk in talks:
            talk.close()
        wait.until(lambda: not made.drains(), "it has ended, and waited a second for a child")
    finally:
        for child in children:
            os.kill(child, signal.SIGCONT)
    lost = relayed.figures(server)["AccessLinesLost"]
    assert lost > count // 8
    file = server.directory / "long.log"
    wait.until(lambda: file.read_text().count("\n") == count - lost, "the others are written")
    assert {len(line) for line in file.read_text().splitlines()} == {LONG}
    wait.until(lambda: lost_said(server) == lost, lambda: f"{lost} are said to be lost, not {lost_said(server)}")


#: Paths of tunnels, and what is said of their ends. After two Close frames the back end closes first.
ENDS = {
    "orderly": ("backend", "closed"),
    "gone": ("client", "closed"),
    "reset": ("client", "reset"),
    "backend": ("backend", "closed"),
    "dropped": ("backend", "reset"),
    "idle": ("server", "idle-timeout"),
    "lifetime": ("server", "lifetime"),
    "admin": ("server", "closed-by-admin"),
}


def leave(connection):
    """A back end that ends by itself where the path says so."""
    steps.switch()(connection)
    path = connection.request.target
    for _ in range(3):
        connection.send(websocket.read_frame(connection.recv_exactly).encode(mask=False))
    if path == "/backend":
        connection.send(websocket.close_frame(4001).encode(mask=False))
    elif path == "/dropped":
        return connection.reset()
    else:
        steps.websocket_echo(connection)
    connection.close()


@pytest.mark.parametrize("mpm", MPM)
def test_line_of_each_end(site, client, backend, mpm):
    """Each has one line, with who ended it and why, as WSF0202 has it."""
    # Timers are the same everywhere.
    expected = {end: of for end, of in ENDS.items() if mpm == "event" or end not in ("idle", "lifetime")}
    origin = backend()
    origin.answers(leave)
    made = site(mpm, directives, origin=origin, vhost=f"""{statuspage.SECTION.format(statuspage.ACTIONS + chr(10) + "ProxyPass !")}
<Location "/idle">
    WSForwardIdleTimeout 1s
</Location>
<Location "/lifetime">
    WSForwardMaxLifetime 1s
</Location>""")  # fmt: skip
    server, talks = made.server, {end: client(made.plain) for end in expected}
    for end, talk in talks.items():
        tunnel(talk, f"/{end}")
    relayed.wait_figure(server, "HandedOver", len(expected))
    close(talks["orderly"])
    talks["gone"].close()
    for end in ("backend", "dropped"):
        talks[end].end()
        talks[end].close()
    talks["reset"].reset()
    page = statuspage.Page(server, client, made.plain)
    [admins] = [row for row in page.tunnels() if row["path"] == "/admin"]
    assert page.close(id=admins["id"], code=4002) == 1
    relayed.wait_figure(server, "Tunnels", 0)
    found = lines(server, count=len(expected), request="GET /")
    found = {line["request"].split()[1].strip("/"): line for line in found if "/status" not in line["request"]}
    assert {end: (line["by"], line["reason"]) for end, line in found.items()} == expected
    said = {end.id: end for end in relayed.ends(server, len(expected))}
    assert len(said) == len(expected)
    for line in found.values():
        end = said[line["id"]]
        assert (line["by"], line["reason"], int(line["bytes-up"]), int(line["bytes-down"])) == (BY[end.by], end.why, end.up, end.down)
        for side in ("client", "origin"):
            code = getattr(end, f"{side}_close")
            assert line["code-client" if side == "client" else "code-backend"] == ("-" if code is None else str(code))


@pytest.mark.parametrize("mpm", MPM)
def test_line_of_a_tunnel_that_panics(site, client, monkeypatch, mpm):
    """The kernel tells the relay of more bytes than were asked for. That tunnel's line says so, and the others go on."""
    strace = shutil.which("strace")
    if not strace and os.environ.get("CI") != "true":
        pytest.skip("needs strace")
    monkeypatch.delenv("RUST_BACKTRACE", raising=False)
    made = site(mpm, directives)
    server, other, talk = made.server, client(made.plain), client(made.plain)
    tunnel(other, "/other")
    tunnel(talk, "/panics")
    relayed.wait_figure(server, "Tunnels", 2)
    server.log.expect("WSF0202.*server: panic")
    server.log.expect("WSF0205: a panic in a tunnel's task")
    threads = [procfs.thread(child, "relay-0") for child in server.children]
    tracer = subprocess.Popen([strace, "-qq", "-o", "/dev/null", *(f"--attach={thread}" for thread in threads),
                               "-e", "trace=recvfrom", "-e", "inject=recvfrom:retval=16777216:when=1"])  # fmt: skip
    try:
        wait.until(lambda: all("TracerPid:\t0\n" not in Path(f"/proc/{thread}/status").read_text() for thread in threads), "all are traced")
        talk.send(frame(b"more"))
        [line] = lines(server, count=1, request="/panics")
    finally:
        tracer.terminate()
        tracer.wait()
    assert (line["by"], line["reason"]) == ("server", "panic")
    other.echoes(frame(b"still here"))
    close(other)
    [line] = lines(server, count=1, request="/other")
    assert line["reason"] == "closed"
    # This test's own doing.
    own = re.compile(r"^crash: .*WSF0205: thread 'relay-0' panicked")
    assert [line for line in server.log.unexpected() if not own.search(line)] == []
    server.log.open_span()
