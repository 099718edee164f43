"""mod_status links to the status page, where there is one; and what is said where nothing can be listed."""

import http.client
import subprocess

import pytest

from harness import http as raw
from harness import relayed, statuspage, wait

#: Refuses shared memory that is larger than all but the register.
REFUSES = """
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (length > 64u << 20 && flags & MAP_SHARED) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}
void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mmap64(at, length, protection, flags, fd, offset);
}
"""


def text(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


SERVER_STATUS = """<Location "/server-status">
    SetHandler server-status
</Location>"""
PAGE = """<Location "{}">
    SetHandler wsforward-status
</Location>"""


@pytest.mark.parametrize("own, common, link", [
    (PAGE.format("/tunnels"), "", "/tunnels"),
    ("", PAGE.format("/of all"), "/of%20all"),
    (PAGE.format("/a<b>&'c"), "", "/a%3Cb%3E%26%27c"),
    (f'<IfModule proxy_module>\n{PAGE.format("/tunnels")}\n</IfModule>', PAGE.format("/all"), "/tunnels"),
    ("", "", None),
    (PAGE.replace("{}", "~ ^/tunnels"), "", None),
    (PAGE.format("/st?tus"), "", None),
    ('<Location "/tunnels">\n    SetHandler server-status\n</Location>', "", None),
])  # fmt: skip
def test_mod_status_links_to_the_page(httpd, own, common, link):
    server = httpd()
    server.directives(common)
    port = server.vhost(f"{SERVER_STATUS}\n{own}")
    other = server.vhost(SERVER_STATUS)
    server.start()
    page = text(port, "/server-status")
    assert "WebSocket tunnels (mod_wsforward)" in page
    found = page.split("WebSocket tunnels (mod_wsforward)")[1]
    assert ("<a href" in found) == (link is not None)
    if link:
        assert f'<a href="{link}">' in found
        assert "<h1" in text(port, link)
    assert "<a" not in text(port, "/server-status?auto")
    # That of another virtual host is not there.
    assert ("<a href" in text(other, "/server-status").split("(mod_wsforward)")[1]) == bool(common)


def test_link_after_reloads(httpd):
    server = httpd()
    port = server.vhost(f"{SERVER_STATUS}\n{PAGE.format('/one')}")
    server.start()
    assert '<a href="/one">' in text(port, "/server-status")
    at = next(at for at, one in enumerate(server._directives) if "/one" in one)
    server._directives[at] = server._directives[at].replace("/one", "/two")
    server.reload()
    wait.until(lambda: '<a href="/two">' in text(port, "/server-status"), "the link to the new page")
    server._directives[at] = server._directives[at].replace("wsforward-status", "server-status")
    server.reload()
    wait.until(lambda: "(mod_wsforward)" in (page := text(port, "/server-status")) and "<a href" not in page.split("(mod_wsforward)")[1],
               "the link is gone with the page")  # fmt: skip


@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_without_a_register_all_else_works(httpd, backend, client, monkeypatch, scratch, mpm):
    library = scratch / f"refuses-{mpm}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=REFUSES, text=True, check=True)
    library.chmod(0o755)
    server = httpd(mpm=mpm)
    server.expect_log("WSF0401: open tunnels are not listed, .*: Cannot allocate memory")
    server.expect_log("WSF0108: .*WSForwardMaxTunnelsPerClient 3")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    page = statuspage.start(server, client, backend(), main="WSForwardMaxTunnelsPerClient 3")
    monkeypatch.delenv("LD_PRELOAD")
    talk = relayed.opened(server, client(server.port))
    talk.echoes()
    assert page.tunnels() == []
    overview = page.json()
    assert (overview["tunnels"]["open"], overview["tunnels"]["unlisted"]) == (1, 1)
    assert page.get().status == 200
    assert page.get("metrics").status == 200
    assert page.post(action="close", nonce=overview["nonce"] or "0", client="127.0.0.1").status == 403
    talk.echoes()
    server.reload()
    talk.echoes()
    for _ in range(2):
        relayed.opened(server, client(server.port))
    assert client(server.port).ask(raw.handshake()).status == 503
