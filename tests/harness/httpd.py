"""A real httpd with a configuration of its own, from start to a clean end."""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from . import config, paths, procfs, wait
from .errorlog import ErrorLog
from .ports import Port

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Httpd:
    """One server in a directory of its own below the system's directory for temporary files.

    `module` is the file of the module under test, None for stock httpd. `order` says whether
    mod_proxy is loaded first or last. The directory is open to all, because httpd's children run
    as another user when the tests run as root.
    """

    #: What httpd's command line is put behind.
    default_prefix = ()
    #: Every server that was started and not yet forgotten: the suite checks their logs.
    living = []

    def __init__(self, *, module, mpm="event", order="proxy first", wstunnel=True, extra=(),
                 without=(), certificate=None):  # fmt: skip
        # It may say that there is something missing, before anything is made.
        self._modules = config.load_modules(mpm, module, order, wstunnel, extra, without)
        self.mpm, self.module, self.certificate = mpm, module, certificate
        self.directory = Path(tempfile.mkdtemp(prefix="wsf-"))
        self.directory.chmod(0o755)
        self.htdocs = self.directory / "htdocs"
        self.htdocs.mkdir()
        self.htdocs.chmod(0o755)
        self.log = ErrorLog(self.directory / "error.log")
        self._with_status = "status" not in without
        self._directives, self._ports = [], []
        self._status = self._port()
        self._process = None
        self.prefix = list(self.default_prefix)
        #: Seconds from the signal to the parent's end, once it was stopped.
        self.stopped_in = None
        Httpd.living.append(self)

    # Configuration.

    def _port(self):
        self._ports.append(Port())
        return self._ports[-1].number

    def directives(self, text):
        """Adds directives of the main server."""
        self._directives.append(text)

    def vhost(self, text, tls=False, address="127.0.0.1"):
        """Adds a virtual host with these directives and returns its port."""
        port = self._port()
        self._directives.append(config.vhost(f"{address}:{port}", text, self.certificate if tls else None))
        return port

    def page(self, path, content):
        """Puts a file below the document root. It is a minute old: of newer ones httpd says in the ETag that it is weak."""
        file = self.htdocs / path
        for directory in [*file.relative_to(self.htdocs).parents][-2::-1]:
            (self.htdocs / directory).mkdir(exist_ok=True, mode=0o755)
        file.write_text(content)
        file.chmod(0o644)
        os.utime(file, (time.time() - 60,) * 2)
        return file

    def _write(self):
        text = config.server(self.directory, self._modules, self.mpm, self._status,
                             "\n".join(self._directives))
        try:
            config.check_known(text)
        except config.NotInThisHttpd:
            # Then it logs nothing of what is expected of it.
            self.log.expected.clear()
            raise
        file = self.directory / "httpd.conf"
        file.write_text(text)
        return file

    def _command(self, *more):
        return [paths.httpd(), "-d", self.directory, "-f", self._write(), *more]

    def configtest(self):
        """Exit status and output of `httpd -t`."""
        done = subprocess.run(self._command("-t"), capture_output=True, text=True, timeout=wait.scaled(30))
        return done.returncode, done.stdout + done.stderr

    # Life.

    @property
    def pid(self):
        """The parent's process id."""
        if self.prefix:
            [pid] = procfs.children(self._process.pid)
            return pid
        return self._process.pid

    @property
    def children(self):
        """Process ids of the children."""
        return procfs.children(self.pid)

    def serving(self, talk):
        """The child that has the connection of this client, which was answered on it."""
        *_, inode = procfs.tcp_socket(talk.plain.getpeername()[1], talk.plain.getsockname()[1])
        [child] = [pid for pid in self.children if f"socket:[{inode}]" in procfs.descriptors(pid)]
        return child

    @property
    def running(self):
        """True between start and stop."""
        return self._process is not None

    def start(self):
        """Starts the server and returns when it answers requests."""
        with (self.directory / "error.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [*self.prefix, *self._command("-DFOREGROUND")], stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                # httpd signals its process group, which must not be that of the tests.
                start_new_session=True, preexec_fn=_end_with_parent)  # fmt: skip
        self.wait_ready()
        unexpected = self.log.unexpected()
        if unexpected:
            raise RuntimeError("\n".join(unexpected))
        return self

    def wait_ready(self):
        """Waits until the server answers."""
        def answers():
            if self._process.poll() is not None:
                raise RuntimeError(f"httpd ended with {self._process.returncode}:\n{self.log.text()}")
            return self.log.matching("resuming normal operations") and self.status() is not None
        wait.until(answers, lambda: f"httpd answers; log:\n{self.log.text()}", 20)

    def send_signal(self, number):
        """Signals the parent."""
        os.kill(self.pid, number)

    def reload(self, how=signal.SIGUSR1):
        """Restarts gracefully (or by another signal) and waits for the new generation."""
        self._write()
        said = len(self.log.matching("resuming normal operations"))
        self.send_signal(how)
        self.log.wait_for("resuming normal operations", said + 1)
        wait.until(lambda: self.status() is not None, "httpd answers after the restart")

    def stop(self, how=signal.SIGTERM):
        """Stops the server; any process that it leaves behind is an error."""
        if not self._process:
            return
        process, self._process = self._process, None
        began = None
        try:
            if process.poll() is None:
                # A hard stop meets a bug of stock httpd: the main thread of a child closes the sockets
                # of its workers, and dies if one of them just frees its connection (event.c and
                # worker.c, close_worker_sockets). The last request's worker may still be at it.
                parent = procfs.children(process.pid)[0] if self.prefix else process.pid
                children = procfs.children(parent)
                # Looked at twice: one that slept when it was looked at may have got work from one that did not yet.
                wait.until(lambda: all(map(procfs.asleep, children * 2)), "httpd's threads sleep before its stop")
                began = time.monotonic()
                os.kill(parent, how)
            process.wait(wait.scaled(20))
            self.stopped_in = time.monotonic() - began if began else None
            # What is in front of httpd may end of the signal that prefork's parent sends to its group.
            assert self.prefix or not began or process.returncode == 0, f"httpd ended with {process.returncode}"
            wait.until(lambda: not _group_lives(process.pid), "all processes of httpd end", 15)
        finally:
            if _group_lives(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def forget(self):
        """Stops the server and removes its directory."""
        try:
            self.stop()
        finally:
            Httpd.living.remove(self)
            for port in self._ports:
                port.release()
            shutil.rmtree(self.directory, ignore_errors=True)

    # What it says about itself.

    def status(self):
        """mod_status's `?auto` as a dict, None if it does not answer."""
        try:
            url = f"http://127.0.0.1:{self._status}/?auto"
            request = urllib.request.Request(url, headers={"Connection": "close"})
            with urllib.request.urlopen(request, timeout=wait.scaled(2)) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    def wait_idle(self):
        """Waits until no worker but the one that answers this works on a request."""
        def idle():
            status = self.status()
            return status and int(status["BusyWorkers"]) <= 1
        wait.until(idle, lambda: f"httpd is idle; status: {self.status()}", 15)

    def expect_log(self, regex, certain=True):
        """Declares a line at warn or above that this test causes, for certain or by chance."""
        self.log.expect(regex, certain)

    def access(self):
        """The lines of the access log."""
        return (self.directory / "access.log").read_text().splitlines()


def _end_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
