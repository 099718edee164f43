"""Long lines: what a tunnel keeps of them until its end has a bound."""

import pytest

from harness import http, procfs, relayed, wait
from harness.accesslog import FORMAT, close, frame
from harness.draining import site  # noqa: F401

#: What mod_log_config makes four bytes of.
ESCAPED = "\xe9"
#: As long as a line of a head may be.
LONGEST = [("Referer", ESCAPED * 8150), ("User-Agent", ESCAPED * 8150)]
#: Two headers whose line is hardly shorter than what a tunnel keeps.
KEPT = [("Referer", ESCAPED * 1950), ("User-Agent", ESCAPED * 1950)]
#: Apache's format `combined`, and what the module knows at the end.
COMBINED = r'''LogFormat "%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\" %{reason}^WS %{messages-up}^WS" combined
CustomLog "logs.combined" combined'''
#: Kibibytes that WSForwardMaxTunnels reckons with for a tunnel where it is not set.
RECKONED_KIB = 32


@pytest.mark.parametrize("fields", [LONGEST, KEPT], ids=["longest", "kept"])
def test_memory_of_a_tunnel_whose_client_sends_long_headers(site, client, monkeypatch, fields):
    # With an arena for each thread, what these have to spare would be measured too.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    made = site("event", COMBINED, extra=["logio"])
    server, talks = made.server, []

    def more(count):
        for _ in range(count):
            talk = client(made.plain)
            assert talk.ask(http.handshake(fields=fields)).status == 101
            talks.append(talk)
        relayed.wait_figure(server, "Tunnels", len(talks))
        return sum(procfs.private_kib(child) for child in server.children)
    before = more(40)
    after = more(200)
    assert (after - before) / 200 < RECKONED_KIB


def test_long_headers_are_no_drain_process_each(site, client):
    """Children with few tunnels leave them to one process, by messages of a bounded length."""
    made = site("prefork", COMBINED + "\nStartServers 4\nMinSpareServers 4\nMaxSpareServers 8", extra=["logio"])
    server, talks = made.server, [client(made.plain) for _ in range(24)]
    for number, talk in enumerate(talks):
        assert talk.ask(http.handshake("/" + "a" * 200, fields=(LONGEST, KEPT)[number % 2])).status == 101
    relayed.wait_figure(server, "Tunnels", len(talks))
    server.reload()
    wait.until(made.drains, "a drain process")
    for talk in talks:
        talk.echoes(frame(b"still here"))
    assert len(made.drains()) == 1


def test_line_that_is_too_long_to_be_kept_comes_at_the_beginning(site, client):
    """As with WSForwardAccessLog start, where the bound is reached: the other logs have theirs at the end."""
    def more(server):
        escaped = FORMAT.replace('"', '\\"')
        return f'''LogFormat "{escaped}|%{{Referer}}i" ws
CustomLog "{server.directory}/first.log" ws
CustomLog "{server.directory}/second.log" ws
CustomLog "{server.directory}/short.log" "%U %{{reason}}^WS"
LogLevel wsforward:info'''
    made = site("event", more, extra=["logio"], vhost="WSForwardAccessLogInterval 1s")
    server, talk = made.server, client(made.plain)

    def reasons(file):
        text = (server.directory / file).read_text()
        return [line.split("|")[15] for line in text[: text.rfind("\n") + 1].splitlines() if "/long" in line]
    assert talk.ask(http.handshake("/long", fields=[("Referer", ESCAPED * 3000)])).status == 101
    relayed.wait_figure(server, "Tunnels", 1)
    wait.until(lambda: reasons("second.log") == ["-"], "the line of the second log")
    [said] = server.log.wait_for("WSF0134")
    assert b"/second.log comes at its beginning" in said
    # Lines of a tunnel that goes on are of those that are kept.
    wait.until(lambda: reasons("first.log") == ["-"], "a line of the first log")
    assert "/long -\n" in (server.directory / "short.log").read_text()
    close(talk)
    wait.until(lambda: reasons("first.log")[-1] == "closed", "the line at the end")
    wait.until(lambda: "/long closed\n" in (server.directory / "short.log").read_text(), "that of the short one")
    assert reasons("second.log") == ["-"]
    assert relayed.figures(server)["AccessLinesLost"] == 0


def test_usual_lines_are_kept(site, client):
    """A long path and the headers of a browser with a large cookie, in two logs, are far below the bound."""
    made = site("event", COMBINED + '\nCustomLog "logs.second" "%r %{Cookie}i %{reason}^WS"', extra=["logio"])
    server, talk = made.server, client(made.plain)
    fields = [("Referer", "https://site.test/" + "r" * 2000), ("User-Agent", "Mozilla/5.0 " * 20), ("Cookie", "c" * 4000)]
    assert talk.ask(http.handshake("/" + "p" * 2000, fields=fields)).status == 101
    close(talk)
    for name in ("logs.combined", "logs.second"):
        [file] = server.directory.rglob(name)
        wait.until(lambda file=file: " closed" in file.read_text(), "the line at the end")
    assert server.log.matching("WSF0134") == []
