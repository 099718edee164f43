"""The package in a clean root: install, switch off and on, use, upgrade under load, purge.

clean_root.py BASE DEB: run as root in a network and process namespace of its own (ci/package does
that). BASE is a debootstrapped folder with apache2 in it, which is copied and not changed.
"""

import fnmatch
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "demo")]

from backend import Backend  # noqa: E402
from client import Holder, handshake, plain, prove  # noqa: E402
from harness import procfs, wait  # noqa: E402

PACKAGE = "libapache2-mod-wsforward"
MODULE = "/usr/lib/apache2/modules/mod_wsforward.so"
TUNNELS = 20
#: What a purge may leave, if it does not bear the module's name: logs, the books of dpkg and of a2enmod,
#: and the modules that were enabled for this one.
LEFT = ("/var/log/*", "/var/lib/dpkg/*", "/var/cache/*", "/run/*", "/var/lib/apache2/module/*",
        "/etc/apache2/mods-enabled/proxy*")  # fmt: skip
#: Port 80 forwards, port 81 does not say so: the package's own default.
SITE = """
ServerName clean.test
Listen 81
ProxyPass "/back/" "http://127.0.0.1:{port}/"
<VirtualHost *:80>
    <IfModule mod_wsforward.c>
        WSForward On
        WSForwardRelay On
    </IfModule>
</VirtualHost>
<VirtualHost *:81>
</VirtualHost>
"""


class Root:
    """A copy of a debootstrapped folder, to run commands in."""

    def __init__(self, base):
        self.path = Path(tempfile.mkdtemp(prefix="root-", dir=base.parent))
        self.path.rmdir()
        subprocess.run(["cp", "-a", base, self.path], check=True)
        for kind, where in (("proc", "proc"), ("tmpfs", "run"), ("tmpfs", "tmp")):
            subprocess.run(["mount", "-t", kind, kind, self.path / where], check=True)
        (self.path / "run" / "lock").mkdir()
        # In place of an init system: maintainer scripts may reload the service.
        self.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 0\n")
        (self.path / "usr/sbin/policy-rc.d").chmod(0o755)

    def run(self, *command, status=0):
        """Runs a command in it and returns what it prints; any other status is an error."""
        done = subprocess.run(["chroot", self.path, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"})
        assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def write(self, path, text):
        """Writes a file in it."""
        (self.path / path.lstrip("/")).write_text(text)

    def files(self):
        """Every file and link in it, mounts apart."""
        found = subprocess.run(["find", self.path, "-xdev", "-printf", "/%P\n"], check=True, capture_output=True,
                               text=True)  # fmt: skip
        return set(found.stdout.splitlines())

    def remove(self):
        """Unmounts and deletes it."""
        for where in ("tmp", "run", "proc"):
            subprocess.run(["umount", "-l", self.path / where], check=False)
        shutil.rmtree(self.path)


class Apache:
    """The service of the root."""

    def __init__(self, root):
        self.root = root

    @property
    def pid(self):
        """The parent's process id."""
        return int((self.root.path / "run/apache2/apache2.pid").read_text())

    @property
    def log(self):
        """The error log."""
        return (self.root.path / "var/log/apache2/error.log").read_text(errors="replace")

    def reloads(self):
        """How often a generation began."""
        return self.log.count("resuming normal operations")

    def wait_reloaded(self, reloads):
        """Waits for one more generation than `reloads`, and for its answer."""
        wait.until(lambda: self.reloads() > reloads, lambda: f"a reload in\n{self.log}", 20)
        wait.until(self.answers, "an answer after the reload", 20)

    def answers(self):
        """Whether it serves its front page."""
        try:
            plain(80, "/")
            return True
        except OSError:
            return False


def upgrades(port):
    """Whether a handshake at that port gets its 101; if not it must be the 426 of a plain GET."""
    _, response, client = handshake(port, "/back/echo")
    client.close()
    assert response.status in (101, 426), response.status
    return response.status == 101


def newer(deb, directory):
    """The same package as a later version, with a module file that differs."""
    tree = directory / "tree"
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = [f"{line}+later" if line.startswith("Version:") else line for line in control.read_text().splitlines()]
    control.write_text("\n".join(lines) + "\n")
    with (tree / MODULE.lstrip("/")).open("ab") as file:
        file.write(b"later")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, directory / "later.deb"], check=True,
                   capture_output=True)  # fmt: skip
    return directory / "later.deb"


def install(root, deb):
    """Installs a package file without a complaint of Apache's about its configuration."""
    shutil.copy(deb, root.path / "tmp")
    said = root.run("dpkg", "-i", f"/tmp/{deb.name}")
    assert "configuration is broken" not in said, said


def broken_links(documents):
    """Relative links in Markdown files below a folder to what is not there."""
    broken, seen = [], 0
    for file in documents.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", file.read_text()):
            if not re.match(r"[a-z]+:", target):
                seen += 1
                if not (file.parent / target).exists():
                    broken.append(f"{file.relative_to(documents)}: {target}")
    assert seen, f"no link in any document below {documents}"
    return broken


def check(root, deb, step):
    apache = Apache(root)
    before = root.files()

    step("install: enabled, with the modules that it needs; configtest; -M, -S; documents whose links hold")
    install(root, deb)
    for module in ("wsforward", "proxy", "proxy_http"):
        assert "enabled" in root.run("a2query", "-m", module)
    assert "Syntax OK" in root.run("apache2ctl", "configtest")
    assert "wsforward_module (shared)" in root.run("apache2ctl", "-M")
    root.run("apache2ctl", "-S")
    broken = broken_links(root.path / "usr/share/doc" / PACKAGE)
    assert not broken, broken

    holder = Holder()
    backend = Backend(holder.hold, holder.release)
    holder.port = 80
    site = SITE.format(port=backend.port)
    root.write("/etc/apache2/sites-available/000-default.conf", site)
    assert "Syntax OK" in root.run("apache2ctl", "configtest")
    root.run("service", "apache2", "start")
    wait.until(apache.answers, lambda: f"Apache's answer; log:\n{apache.log}", 20)

    step("a WebSocket through the site that says WSForward On, none through the one that does not")
    prove(80, 81, [("Cookie", "a=b")])

    step("a2dismod and a reload: plain HTTP again; a2enmod and a reload: WebSocket again")
    for command, wanted in (("a2dismod", False), ("a2enmod", True)):
        generations = apache.reloads()
        root.run(command, "-q", "wsforward")
        assert "Syntax OK" in root.run("apache2ctl", "configtest")
        root.run("service", "apache2", "reload")
        apache.wait_reloaded(generations)
        assert upgrades(80) is wanted

    step(f"upgrade with {TUNNELS} tunnels open: by reload, the new file in use, every tunnel alive")
    holder.hold(TUNNELS)
    pid, generations = apache.pid, apache.reloads()
    old = (root.path / MODULE.lstrip("/")).stat().st_ino
    with tempfile.TemporaryDirectory() as directory:
        install(root, newer(deb, Path(directory)))
    apache.wait_reloaded(generations)
    new = (root.path / MODULE.lstrip("/")).stat().st_ino
    assert apache.pid == pid, "the server was restarted, not reloaded"
    assert old != new
    mapped = procfs.mapped_inodes(pid, MODULE)
    assert mapped == {new}, f"the parent maps {mapped}, the new file is {new}, the old was {old}"
    holder.echo_all()
    assert upgrades(80)
    holder.release()

    step("remove: Apache runs on without it; purge: nothing is left")
    generations = apache.reloads()
    root.run("dpkg", "-r", PACKAGE)
    apache.wait_reloaded(generations)
    assert not upgrades(80)
    assert not (root.path / MODULE.lstrip("/")).exists()
    root.run("dpkg", "-P", PACKAGE)
    assert "is not installed" in root.run("dpkg-query", "-s", PACKAGE, status=1)
    root.run("service", "apache2", "stop")
    left = sorted(name for name in root.files() - before
                  if "wsforward" in name or not any(fnmatch.fnmatch(name, known) for known in LEFT))
    assert left == [], left
    gone = sorted(before - root.files())
    assert not gone, gone
    bad = [line for line in apache.log.splitlines() if re.search(r":(warn|error|crit|alert|emerg)\]|exit signal", line)]
    assert not bad, "\n".join(bad)


def main():
    base, deb = (Path(argument).resolve() for argument in sys.argv[1:])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    root = Root(base)
    try:
        check(root, deb, lambda text: print(f"  {text}", flush=True))
    except AssertionError as error:
        return f"ci/package --check: {error}"
    finally:
        subprocess.run(["chroot", root.path, "service", "apache2", "stop"], capture_output=True, check=False)
        root.remove()
    print("ci/package --check: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
