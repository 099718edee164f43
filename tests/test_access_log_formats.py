"""The formats of the access log that docs/operations.md shows: in a real httpd, and its lines parsed."""

import json
import re
import subprocess

import pytest

from harness import http, paths, relayed, wait
from harness.accesslog import close, frame, tunnel
from harness.draining import site  # noqa: F401

SECTION = re.search(r"(?s)\n## The access log\n(.*?)\n## ", (paths.ROOT / "docs" / "operations.md").read_text())[1]
CONFIGURATIONS = re.findall(r"(?s)```apache\n(.*?)```", SECTION)
COMMANDS = re.findall(r"(?m)^\$ (.*)$", SECTION)
[EXAMPLE] = re.findall(r"(?s)```\n(\d.*?)\n```", SECTION)
#: The first format.
LINE = re.compile(r'(?P<client>[\d.]+) (?P<user>\S+) \[[^]]+\] "(?P<request>(?:[^"\\]|\\.)*)" 101 (?P<came>\d+) (?P<went>\d+) (?P<seconds>\d+\.\d{3})'
                  r" (?P<by>\S+) (?P<reason>\S+) (?P<codes>(?:\d+|-) (?:\d+|-)) (?P<id>\S+)")  # fmt: skip


@pytest.fixture
def made(site):
    def configured(server):
        (server.directory / "logs").mkdir()
        return "LogLevel wsforward:info"
    return site("event", configured, vhost="\n".join(CONFIGURATIONS), extra=["logio"])


def lines(made, name, count):
    """The lines of a log, once there are so many."""
    file = made.server.directory / "logs" / name
    return wait.until(lambda: len(found := file.read_text("latin-1").splitlines()) == count and found, f"{count} lines of {name}")


def test_ordinary_lines_are_what_the_document_says(made, client):
    server, talks = made.server, {}
    for path in ("/chat?room=1", "/caf%C3%A9/%22", "/gone", "/left"):
        talks[path] = client(made.plain)
        tunnel(talks[path], path)
    relayed.wait_figure(server, "Tunnels", 4)
    assert client(made.plain).ask(http.request("/page")).status == 200
    close(talks["/chat?room=1"])
    close(talks["/caf%C3%A9/%22"], 4000)
    talks["/gone"].close()
    talks["/left"].send(frame(b"\x03\xe9", 0x88)).close()
    ends = {end.id: end for end in relayed.ends(server, 4)}
    rows = [json.loads(line) for line in lines(made, "tunnels.json", 4)]
    assert {row["request"] for row in rows} == {f"GET {path} HTTP/1.1" for path in talks}
    for row in rows:
        end, asked = ends.pop(row["id"]), http.handshake(row["request"].split()[1])
        assert (row["client"], row["user"], row["host"], row["agent"]) == ("127.0.0.1", "-", "site.test", "-")
        assert row["in"] == len(asked) + end.up and row["out"] > end.down
        assert float(row["seconds"]) == pytest.approx(end.seconds, abs=0.002)
        assert (row["messages_up"], row["backend"]) == ("3", end.origin)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", row["time"])
    said = {row["request"].split()[1]: f"{row['by']} {row['reason']} {row['code_client']} {row['code_backend']}" for row in rows}
    assert said["/chat?room=1"] == "backend closed 1000 1000" and said["/caf%C3%A9/%22"] == "backend closed 4000 4000"
    assert said["/gone"] == "client closed - -" and re.match("(client|backend) (closed|reset) 1001 ", said["/left"])
    # The other format says the same.
    found = [LINE.fullmatch(line) for line in lines(made, "tunnels.log", 4)]
    assert {match["request"].split()[1]: f"{match['by']} {match['reason']} {match['codes']}" for match in found} == said
    assert {match["id"] for match in found} == {row["id"] for row in rows}
    # How those are found that were cut.
    [cut] = [command for command in COMMANDS if command.startswith("awk ")]
    done = subprocess.run(cut, shell=True, cwd=server.directory, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "127.0.0.1"]


def test_lines_of_hostile_clients_are_json_once_they_are_mended(made, client):
    agents = ['"', "\\", '\\" "a": "', "\\x41", "\\\\x41\\", "tab\tand", "\xe9\xff", "\xc3\xa9", "{}[]:,'`$(a)", "\\v\\u0041"]
    for number, agent in enumerate(agents):
        talk = client(made.plain)
        assert talk.ask(http.handshake(f"/{number}", fields=[("User-Agent", agent)])).status == 101
        close(talk)
    raw = lines(made, "tunnels.json", len(agents))
    is_json = {number for number, line in enumerate(raw) if "\\xe9" not in line and "\\xc3" not in line}
    for number in is_json:
        json.loads(raw[number])
    assert len(is_json) == len(agents) - 2
    with pytest.raises(json.JSONDecodeError):
        json.loads(next(line for line in raw if "\\xe9" in line))
    [mend] = [command for command in COMMANDS if command.startswith("sed ")]
    mend, _, _ = mend.partition(" | jq ")
    done = subprocess.run(mend, shell=True, cwd=made.server.directory, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {int(row["request"].split()[1].strip("/")): row["agent"] for row in rows} == dict(enumerate(agents))


def test_example_is_a_line_of_the_format():
    match = LINE.fullmatch(EXAMPLE)
    assert match and f"{match['by']} {match['reason']} {match['codes']}" == "client closed 1001 -"


def test_reasons_and_codes_of_the_table_exist():
    reasons = set(re.findall(r"\| ([a-z-]+)(?:: \.\.\.)? \|", (paths.ROOT / "docs" / "messages.md").read_text()))
    [table] = re.findall(r"(?s)\| by, reason \|.*?\n\n", SECTION)
    for by, reason in re.findall(r"`(client|backend|server) ([a-z-]+)`", table):
        assert reason in reasons, (by, reason)
    assert set(re.findall(r"`([a-z]+-[a-z-]+)`", table)) <= reasons


@pytest.mark.parametrize("relay", ["On", "Off"])
def test_id_that_a_client_sends_is_escaped(site, client, relay):
    """As mod_log_config escapes %{UNIQUE_ID}e: it ends no text of the line."""
    def more(server):
        return f'''SetEnvIf X-Request-ID "^(.+)$" UNIQUE_ID=$1
LogFormat "{{\\"env\\":\\"%{{UNIQUE_ID}}e\\",\\"id\\":\\"%{{id}}^WS\\",\\"by\\":\\"%{{by}}^WS\\"}}" ids
CustomLog "{server.directory}/ids.log" ids'''
    made = site("event", more, vhost=f"WSForwardRelay {relay}")
    path = made.server.directory / "ids.log"
    texts = {"usual-1.2": "usual-1.2", 'x","by":"admin': r'x\",\"by\":\"admin', "a\\b\xc3\xa9": r"a\\b\xc3\xa9"}
    for number, (sent, shown) in enumerate(texts.items(), 1):
        talk = client(made.plain)
        assert talk.ask(http.handshake(fields=[("X-Request-ID", sent)])).status == 101
        close(talk)
        line = wait.until(lambda number=number: len(rows := path.read_text().splitlines()) == number and rows, "its line")[-1]
        assert line.startswith(f'{{"env":"{shown}","id":"{shown}","by":"')
        if "xa9" not in shown:
            assert json.loads(line)["id"] == sent
