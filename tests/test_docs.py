"""The documents agree with the code: directives, messages, links, dependencies, and what they say of stock httpd."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from harness import http, paths, routestable, steps, websocket
from harness.certs import Certificate
from harness.routes import ROUTES

ROOT = paths.ROOT
PAGES = ["README.md", "CHANGELOG.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


def read(name):
    return (ROOT / name).read_text()


def without_code(page):
    return re.sub(r"^```.*?^```", "", read(page), flags=re.M | re.S)


# Directives.

#: The source of each directive's entry.
DIRECTIVES = {
    entry.split('"')[0]: entry for entry in read("src/config/directives.rs").split('name: c"')[1:] if entry.startswith("WSForward")
}
CONTEXTS = {
    "Override": "server config, virtual host, directory, .htaccess",
    "Directory": "server config, virtual host, directory",
    "Section": "directory",
    "Server": "server config",
}


def section(directive):
    return read("docs/mod_wsforward.md").split(f"\n## {directive}\n")[1].split("\n## ")[0]


def line(directive, name):
    """One of the lines with which the section of a directive begins."""
    [found] = re.findall(rf"^- {name}: (.*)$", section(directive), re.M)
    return found


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_directive_is_documented(directive):
    for name in ("Description", "Syntax", "Default", "Context", "Override", "Status", "Compatibility"):
        assert line(directive, name)
    assert line(directive, "Syntax").startswith(f"`{directive} ")
    [example] = re.findall(r"```apache\n(.*?)```", section(directive), re.S)
    assert re.search(rf"^\s*{directive}\s", example, re.M)
    assert f"| {directive} | " in read("README.md")


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_example_is_right(httpd, directive):
    [example] = re.findall(r"```apache\n(.*?)```", section(directive), re.S)
    server = httpd()
    server.directives(example)
    status, text = server.configtest()
    assert status == 0, text


def test_no_directive_is_documented_that_does_not_exist():
    assert len(DIRECTIVES) >= 12
    for page in [*PAGES, "debian/wsforward.conf", "debian/libapache2-mod-wsforward.README.Debian"]:
        # Those of server-status have more behind their names.
        for name in re.findall(r"\bWSForward[A-Z]\w*\b(?!-)", read(page)):
            assert name in DIRECTIVES or f'"{name.removeprefix("WSForward")}"' in read("src/status/mod_status.rs"), (page, name)


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_context_is_that_of_the_code(directive):
    [context] = re.findall(r"context: Context::(\w+)", DIRECTIVES[directive])
    assert line(directive, "Context") == CONTEXTS[context]
    assert line(directive, "Override") == ("FileInfo" if context == "Override" else "none")
    letters = {"Override": "svdh", "Directory": "svd", "Section": "d", "Server": "s"}[context]
    [row] = re.findall(rf"^\| {directive} \|.*$", read("README.md"), re.M)
    assert f"| {letters} | {line(directive, 'Compatibility').split()[1]} |" in row


@pytest.mark.parametrize("directive", [name for name, entry in DIRECTIVES.items() if "values.number(" in entry])
def test_allowed_numbers_are_those_of_the_code(directive):
    [(least, most)] = re.findall(r"values\.number\((\w+)\.\.=([\w:]+)\)", DIRECTIVES[directive])
    least, most = (text.replace("_", "").replace("u32::MAX", str(2**32 - 1)) for text in (least, most))
    assert f"{least} to {most}" in line(directive, "Syntax")


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_default_is_the_same_everywhere(directive):
    """In the reference, in what `httpd -L` prints, in the package's configuration: there, one that depends on the
    machine is an example."""
    default = line(directive, "Default")
    [usage] = re.findall(r'usage: c"([^"]*)"', DIRECTIVES[directive])
    for said in re.findall(r"\(default: ([^)]*)\)", usage):
        assert said in default
    for value in re.findall(rf"^#{directive} (.*)$", read("debian/wsforward.conf"), re.M):
        known = ("the worker's timeout", "as many as fit the memory", "for ever in the relay")
        assert default == f"`{directive} {value}`" or default.startswith(known)


def test_tunnels_by_descriptors_are_those_of_the_code():
    child, pipe = read("src/processes/child.rs"), read("src/relay/pipe.rs")
    [reserve] = map(int, re.findall(r"RESERVE: u64 = (\d+);", child))
    [for_thread] = map(int, re.findall(r"RESERVE_FOR_THREAD: u64 = (\d+);", child))
    [selectable] = map(int, re.findall(r"SELECTABLE: RawFd = (\d+);", read("src/os/descriptors.rs")))
    [pipes] = map(int, re.findall(r"MAX_PIPES: usize = (\d+);", pipe))
    rows = re.findall(r"^\| ([\d,]+)(?: \(Debian's\))? \| ([\d,]+) \|$", read("docs/performance.md"), re.M)
    assert len(rows) == 4
    for limit, tunnels in (map(lambda text: int(text.replace(",", "")), row) for row in rows):
        # 25 threads a child, one relay thread.
        httpd = max(reserve, for_thread * 25 + reserve // 2, selectable if limit > 4 * selectable else 0)
        assert tunnels == (limit - min(httpd + 2 * pipes, limit // 2)) // 2
    assert f"{tunnels_at(rows, '8,192')} tunnels for each child" in read("docs/mod_wsforward.md")
    assert tunnels_at(rows, "8,192").replace(",", "") in read("debian/wsforward.conf")


def tunnels_at(rows, limit):
    return dict(rows)[limit]


def test_tests_of_promises_are_there():
    promises = read("docs/reliability.md").split("\n## Promises\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?!Promise|---)(.*) \| (.*) \|$", promises, re.M)
    assert len(rows) >= 10
    for promise, shown in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", shown)
        assert named or "(#" in shown, promise
        for file, test in named:
            assert f"\ndef {test}(" in read(f"tests/{file}"), (file, test)


# Messages.

#: A line of the catalogue: a name, the number and the level of a message, its fields, its text.
ENTRY = re.compile(r'^ +(\w+)(?:\((\d+)\) (\w+))?(?: \{ [\w, ]+ \})? "((?:[^"\\]|\\.)+)"', re.M)
CATALOGUE = ENTRY.findall(read("src/messages/lib.rs"))
NUMBERS = {int(number) for _, number, _, _ in CATALOGUE if number}


def test_every_message_is_documented_and_no_other():
    documented = re.findall(r"^\| WSF(\d{4}) \|", read("docs/messages.md"), re.M)
    assert len(NUMBERS) >= 25
    assert sorted(map(int, documented)) == sorted(NUMBERS)
    for page in PAGES:
        assert {int(number) for number in re.findall(r"WSF(\d{4})", read(page))} <= NUMBERS, page


@pytest.mark.parametrize("number", sorted(NUMBERS))
def test_level_is_that_of_the_code(number):
    [documented] = re.findall(rf"^\| WSF{number:04} \| ([^|]*) \|", read("docs/messages.md"), re.M)
    levels = {level.lower() for _, of, level, _ in CATALOGUE if of and int(of) == number}
    assert levels
    assert levels <= set(re.findall(r"\w+", documented))


@pytest.mark.parametrize("name, text", [(name, text) for name, _, _, text in CATALOGUE], ids=[one[0] for one in CATALOGUE])
def test_every_text_is_documented(name, text):
    """In the pieces between its fields."""
    page = " ".join(read("docs/messages.md").split())
    for piece in re.split(r"\{[^}]*\}", text.replace('\\"', '"')):
        piece = piece.strip(" :,\"")
        if len(piece.strip(".()\" ")) > 3:
            assert piece in page or piece in page.replace("*", ""), piece


def test_every_text_is_in_the_catalogue():
    """Of what could be a line of the log: nothing is logged that was written elsewhere."""
    logged = r'(?:log::(?:error|warn|info|debug)!|lines::(?:say|log|log_at)|log::(?:request|request_at|request_line|startup))'
    for file in (ROOT / "src").rglob("*.rs"):
        text = file.read_text().partition("mod tests {")[0]
        if "tests" not in file.relative_to(ROOT).parts and file.name != "log.rs":
            for call in re.findall(rf"{logged}\(([^;]*?)\);", text, re.S):
                assert not re.search(r'"[^"{]*[a-z]{3}', call), (file, call)


def reasons(name):
    """Their names in the list of the code."""
    [listed] = re.findall(rf"pub enum {name}, counted in \w+ {{(.*?)\n    }}", read("src/shared/reasons.rs"), re.S)
    return re.findall(r'= "([\w-]+)", "', listed)


def test_every_reason_is_documented():
    messages, reference = read("docs/messages.md"), read("docs/mod_wsforward.md")
    for reason, page in [("Fallback", messages), ("Fallback", reference), ("Refusal", reference)]:
        assert len(reasons(reason)) >= 4
        for name in reasons(reason):
            assert re.search(rf"[ (]{name}[,) ]", page), name
    assert len(reasons("TlsSession")) >= 4
    for name in reasons("TlsSession"):
        assert re.search(rf" {name}[,; ]", reference.split("| WSForwardTls-")[1].split("\n")[0]), name
    for name in set(reasons("TlsSession")) - {"native"}:
        assert re.search(rf" \| {name} \|$", section("WSForwardTLS"), re.M), name
    assert len(reasons("Why")) >= 10
    for name in reasons("Why"):
        assert re.search(rf"^\| {name}(: \.\.\.)? \| ", messages, re.M), name


# Links.


def anchors(page):
    """Those of the page's headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.*)$", without_code(page), re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """And within what the package installs: the README and docs/, as they are here."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert file.is_file(), target
        file = str(file.relative_to(ROOT))
        assert file == "README.md" or file.startswith("docs/"), target
        assert not anchor or anchor in anchors(file), target
    assert re.search(r"^\tdh_installdocs README.md mod_wsforward.load docs$", read("debian/rules"), re.M)


# Rules.

#: Which tests hold for the rows of the table of docs/security.md.
RULE_TESTS = {
    "WSForwardOrigin": "origin", "WSForwardExtensions": "extensions", "WSForwardStrict": "frames",
    "WSForwardMaxMessage": "frames", "WSForwardMaxLifetime": "lifetime", "WSFORWARD_EXPIRES": "lifetime",
    "WSForwardPing": "ping", "WSForwardMessageRate": "rates", "WSForwardBandwidth": "rates",
}  # fmt: skip
ROW = r"^\| (WSF\w+) \| (\w+) \| (\w+) \| ([\w ]+) \| ([\w ]+) \| (\w+) \|$"


@pytest.mark.parametrize("rule", RULE_TESTS)
def test_table_of_rules_is_that_of_the_carriers_tested(rule):
    [cells] = [cells for name, *cells in re.findall(ROW, read("docs/security.md"), re.M) if name == rule]
    [names] = re.findall(r"^pytestmark = pytest.mark.carriers\((.*)\)$", read(f"tests/test_{RULE_TESTS[rule]}.py"), re.M)
    tested = set(re.findall(r'"(\w+)"', names))
    by_fork, by_message = cells.pop(2), cells.pop(2)
    assert {"yes": True, "no": False, "at the handshake": False}[by_fork] == ("drain" in tested)
    assert by_fork == by_message
    for cell, carrier in zip(cells, ("thread", "relay", "http2"), strict=True):
        assert cell == ("yes" if carrier in tested else "no"), carrier


def test_recommended_settings_are_right(httpd):
    example, *_ = re.findall(r"```apache\n(.*?)```", read("docs/security.md"), re.S)
    server = httpd()
    server.directives(example)
    status, text = server.configtest()
    assert status == 0, text


def test_no_row_of_the_table_of_rules_is_without_a_test():
    rows = {name for name, *_ in re.findall(ROW, read("docs/security.md"), re.M)}
    # test_answers_101.py and test_http2.py are about it.
    assert rows == {*RULE_TESTS, "WSForwardCheck"}


def test_contributing_names_what_is_there():
    """Every path, directory or script; and every directory of src/ is explained."""
    text = read("CONTRIBUTING.md")
    named = set(re.findall(r"`((?:src|tests|docs|bench|demo|ci|\.ci)/[\w./-]*)", text))
    assert len(named) >= 20
    for name in named:
        assert (ROOT / name).exists() or name == "tests/artefacts", name
    for folder in (file for file in (ROOT / "src").iterdir() if file.is_dir()):
        assert f"`src/{folder.name}/`" in text, folder.name


# Dependencies.


def test_every_dependency_is_explained():
    manifests = []
    for folder, below, files in os.walk(ROOT):
        # What is built there comes and goes.
        below[:] = [name for name in below if name not in ("target", ".venv", ".git")]
        manifests += [Path(folder, name) for name in files if name == "Cargo.toml"]
    used = set()
    for file in manifests:
        manifest = tomllib.loads(file.read_text())
        for table in (manifest, *manifest.get("target", {}).values()):
            for kind in ("dependencies", "dev-dependencies", "build-dependencies"):
                used |= {name for name, how in table.get(kind, {}).items() if "path" not in how}
    tables = read("README.md").split("| Dependency | Why it is there |")[1:]
    explained = re.findall(r"^\| ([\w-]+) \| ", "".join(tables), re.M)
    assert len(manifests) >= 6
    assert sorted(explained) == sorted(used)


# Examples: what browser applications are put behind.


def examples():
    """(where it stands, directives) of each that proxies for a browser: not another protocol (upgrade=), and not
    the recipe that is quoted as it is found (E=UPGRADE)."""
    pages = [(page, read(page)) for page in PAGES]
    commented = re.findall(r"^#   ?(.*)$", read("debian/wsforward.conf"), re.M)
    pages.append(("debian/wsforward.conf", "```apache\n" + "\n".join(commented) + "\n```\n"))
    for page, text in pages:
        for example in re.findall(r"^```apache\n(.*?)^```", text, re.M | re.S):
            if re.search(r"^\s*ProxyPass |\[P", example, re.M) and not re.search("upgrade=|E=UPGRADE", example):
                yield page, example


def test_examples_keep_what_applications_compare_with_origin():
    found = list(examples())
    assert {page for page, _ in found} >= {"README.md", "docs/mod_wsforward.md", "debian/wsforward.conf"}
    for page, example in found:
        assert re.search(r"^\s*ProxyPreserveHost On$", example, re.M), page
        assert re.search(r'^\s*RequestHeader set X-Forwarded-Proto "expr=%\{REQUEST_SCHEME\}"$', example, re.M), page


def refuse_other_origins(connection):
    """Tornado's rule: 403 where Origin is not the Host of the request; no Origin is no browser."""
    asked = connection.request
    scheme, host = asked.get("X-Forwarded-Proto") or "http", asked.get("Host")
    if asked.get("Origin") not in (None, f"{scheme}://{host}"):
        connection.send(http.page(b"another origin", "403 Forbidden"))
        connection.close()
        return
    steps.switch()(connection)
    steps.drain(connection)


def test_quick_start_works_for_applications_that_look_at_origin(httpd, backend, client, certificate):
    """README's virtual host and README's curl; without the two lines both are refused."""
    origin = backend()
    origin.answers(refuse_other_origins)
    page = read("README.md")
    [block] = re.findall(r"<VirtualHost \*:443>\n    SSLEngine on\n    \.\.\.\n(.*?)</VirtualHost>", page, re.S)
    block = block.replace("http://localhost:5020/", origin.url("http"))
    bare = "\n".join(line for line in block.splitlines() if "PreserveHost" not in line and "X-Forwarded-" not in line)
    [command] = re.findall(r"^\$ (curl -i -N.*?)\n```", page, re.M | re.S)
    fields = [tuple(field.split(": ", 1)) for field in re.findall("-H '([^']*)'", command)]
    host, path = re.findall(r"\shttps://(\S*?)(/\S*)$", command)[0]
    assert ("Origin", f"https://{host}") in fields
    server = httpd()
    ports = {text: server.vhost(text, tls=True) for text in (block, bare)}
    server.start()
    found = {}
    for text, port in ports.items():
        with client(port, certificate.client_context()) as talk:
            found[text] = talk.ask(http.request(path, host=host, fields=fields)).status
    assert found == {block: 101, bare: 403}


# What they say of stock httpd.

RIGHT = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": websocket.ACCEPT}


def switch(start="HTTP/1.1 101 Switching Protocols", **fields):
    changed = RIGHT | {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in changed.items() if value is not None]
    return "\r\n".join([start, *lines, "", ""]).encode()


def refusal(start=b"HTTP/1.1 403 No", lines=b""):
    return start + b"\r\n" + lines + b"Content-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def origin(shared_backend):
    return shared_backend()


@pytest.fixture(scope="module")
def servers(shared_httpd, origin):
    """Stock httpd, and httpd with the module."""
    stock, ours = shared_httpd(module=None), shared_httpd()
    # The back end ends each connection: one that is kept may be gone when it is used again.
    stock.port = stock.vhost(f'ProxyPass "/" "{origin.url("http")}" upgrade=websocket disablereuse=on')
    ours.port = ours.vhost(f'WSForward On\nProxyPass "/" "{origin.url("http")}" disablereuse=on')
    return stock.start(), ours.start()


def statuses(servers, origin, client, data):
    for server in servers:
        server.log.expect(r"WSF010[23]|AH0", certain=False)
    found = []
    for server in servers:
        origin.answers(data, steps.half_close, steps.drain)
        with client(server.port) as talk:
            found.append(talk.send(http.handshake()).read_head().status)
    return found


@pytest.mark.parametrize("data", [
    switch(Connection=None), switch(Sec_WebSocket_Accept=None), switch(Sec_WebSocket_Accept="AAAA"),
    switch(Sec_WebSocket_Protocol="chat"), switch(Sec_WebSocket_Extensions="x"), switch("HTTP/1.0 101 Switching Protocols"),
])  # fmt: skip
def test_stock_passes_a_101_that_is_wrong(servers, origin, client, data):
    """README, "When stock Apache is enough"."""
    assert statuses(servers, origin, client, data) == [101, 502]


@pytest.mark.parametrize("data", [switch(Upgrade=None), switch(Upgrade="h2c"), switch(Upgrade="websocket, h2c")])
def test_stock_looks_at_upgrade(servers, origin, client, data):
    """And at nothing else, as the reference says."""
    assert statuses(servers, origin, client, data) == [502, 502]


@pytest.mark.parametrize("data", [
    refusal(b"HTTP/1.2 403 No"), refusal(b"HTTP/1.1 099 No"), refusal(b"HTTP/1.1 600 No"), refusal(b"HTTP/1.1  403 No"),
    refusal(b"HTTP/1.1 403 N\x01o"), refusal(b"HTTP/1.1 403 N\x7fo"), refusal(b"HTTP/1.1 403 " + b"N" * 8100),
    refusal(lines=b"X-Bare: a\rb\r\n"), refusal(lines=b"".join(b"X-%d: 1\r\n" % n for n in range(100))),
    refusal(lines=b"".join(b"X-%d: %s\r\n" % (n, b"x" * 7000) for n in range(10))),
], ids=lambda data: repr(data[:40]))  # fmt: skip
def test_deviations_of_the_reference(servers, origin, client, data):
    """Each head of "What the back end may answer" that is 502 here, and is not so there."""
    expected, found = statuses(servers, origin, client, data)
    assert found == 502 and expected != 502


def test_what_is_no_deviation(servers, origin, client):
    """A tab, bytes above ASCII, a long reason, 100 lines: as they come."""
    for data in (refusal(b"HTTP/1.1 403 N\to"), refusal(b"HTTP/1.1 403 N\xe4o"), refusal(b"HTTP/1.1 403 " + b"N" * 7900),
                 refusal(lines=b"".join(b"X-%d: 1\r\n" % n for n in range(99)))):  # fmt: skip
        assert statuses(servers, origin, client, data) == [403, 403]


TLS_FAILS = {
    "SSLProxyEngine is missing": ("", (), True, "AH01961"),
    "mod_ssl is missing": ("", ("ssl",), True, "AH01144"),
    "the certificate is not trusted": (
        "SSLProxyEngine on\nSSLProxyVerify require\nSSLProxyCACertificateFile {other}", (), True, "AH02039"),
    "the port is plain": ("SSLProxyEngine on", (), False, "AH01097"),
}  # fmt: skip


@pytest.mark.parametrize("why", TLS_FAILS)
def test_tls_to_the_back_end_that_fails(httpd, backend, client, tmp_path, why):
    """The row of the troubleshooting table: 500, and these lines."""
    directives, without, tls, number = TLS_FAILS[why]
    origin = backend(tls=tls)
    if not tls:
        origin.on_connect(http.page(b"speak HTTP", "400 Bad Request"), steps.half_close, steps.drain)
    directives = directives.format(other=Certificate.make(tmp_path).cert)
    server = httpd(without=without)
    port = server.vhost(f'{directives}\nWSForward On\nProxyPass "/" "https://127.0.0.1:{origin.port}/"')
    server.start()
    server.expect_log(number)
    server.expect_log(r"AH0(0898|0961|1084|1097|1998|2003|2004)|SSL Library Error", certain=False)
    with client(port) as talk:
        assert talk.ask(http.handshake()).status == 500
    [rows] = re.findall(r"^\| 500 \|.*\n\| \|.*$", read("README.md"), re.M)
    assert number in rows
    # The back end saw a handshake that failed.
    origin.errors.clear()


#: All that test_routes.py goes; that it really went it says at the end of its run (harness/routestable.py).
EVERY_WAY = {(route.name, client, mpm) for route in ROUTES for client in routestable.CLIENTS for mpm in routestable.MPMS}


def test_table_of_routes_is_that_of_the_tests():
    assert routestable.documented() == EVERY_WAY
    assert read("docs/routes.md") == routestable.table(EVERY_WAY)


def test_a_run_that_differs_from_the_table_of_routes_says_so():
    """What fails, or is no longer run, must not stay in the document."""
    run = routestable.RoutesTable()
    run.passed = set(EVERY_WAY)
    assert run.verdict() == ""
    way = min(EVERY_WAY)
    run.failed = {way}
    assert run.verdict() == f"told and not gone: {', '.join(way)}"
    run.passed, run.failed = {("a new route", "plain", "event")}, set()
    assert run.verdict() == "went and not told: a new route, plain, event"
