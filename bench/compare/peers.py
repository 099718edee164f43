"""What is measured: each peer with its documented settings for WebSocket, its own directory and
its own loopback address, before a back end address of its own."""

import contextlib
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

from processes import Session

PATIENCE = 30


def free_port(address):
    """A port that nobody has on this address."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def http_user():
    """The user for workers of a server that is started by root."""
    try:
        return pwd.getpwnam("www-data").pw_name if os.geteuid() == 0 else None
    except KeyError:
        return None


def httpd():
    """Apache's program, as distributions call it."""
    return shutil.which("apache2") or shutil.which("httpd") or "/usr/sbin/apache2"


class Bench:
    """What the peers share: programs, a limit of descriptors, a certificate, a back end."""

    def __init__(self, directory, module, wsload, descriptors, before=None, before_version=None):
        """`before` is the module of another revision, if there is one to compare with."""
        self.directory, self.module, self.wsload = directory, module, wsload
        self.before, self.before_version = before, before_version
        self.descriptors, self.backends = descriptors, []
        self.certificate, self.key = directory / "certificate.pem", directory / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "30", "-subj", "/CN=bench.test",
             "-addext", "subjectAltName=DNS:bench.test",
             "-keyout", str(self.key), "-out", str(self.certificate)],
            check=True, capture_output=True)
        # HAProxy wants both in one file.
        (directory / "both.pem").write_text(self.certificate.read_text() + self.key.read_text())

    @contextlib.contextmanager
    def more_descriptors(self, wanted):
        """Servers and clients that start meanwhile have so many, if that is more and can be had."""
        before, limits = self.descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)
        if wanted > before:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
                self.descriptors = wanted
            except (ValueError, OSError):
                pass
        try:
            yield
        finally:
            self.descriptors = before
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def close_tunnels(self):
        """The back ends close all their tunnels, as if they were killed."""
        for backend in self.backends:
            backend.process.stdin.write("close\n")
            backend.process.stdin.flush()

    def start_backends(self, addresses, processes):
        """Back ends on these addresses, all on one port; one more with TLS on another."""
        self.port = self._backend([f"{address}:0" for address in addresses])
        for _ in range(1, processes):
            self._backend([f"{address}:{self.port}" for address in addresses])
        self.tls_port = self._backend(["tls", *(f"{address}:0" for address in addresses)])

    def _backend(self, words):
        session = Session([self.wsload.path, "backend", *words], self.directory,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.backends.append(session)
        return json.loads(session.process.stdout.readline())["port"]


class Peer:
    """One of those compared. `note` says with which settings."""

    name = note = ""
    has_proxy = True
    # With its defaults it holds fewer tunnels than as it is measured; if not, why.
    has_smaller_defaults = False
    defaults_note = "its defaults are what it has in all rows"
    # The most tunnels that its settings allow, where that is far below the descriptors.
    most = None
    # A signal that reloads it, by its first process.
    reload_signal = None
    can_reload = True
    can_speak_tls_to_backends = True
    # A program it cannot do without.
    needs = None
    # Whether it is measured only where it is asked for.
    is_extra = False
    # Whether it is measured only with TLS, since without it is another peer.
    is_only_tls = False
    # Where it says what is open; what that costs is measured too.
    status = None
    # How long it may take until it answers.
    patience = PATIENCE

    def __init__(self, bench, index):
        self.bench, self.index = bench, index
        self.address = f"127.2.{index}.1"
        self.backend_address = f"127.1.{index}.1"
        self.directory = bench.directory / self.name
        self.session = None
        self.defaults = self.to_tls = False

    @property
    def backend(self):
        """The back end's address and port."""
        port = self.bench.tls_port if self.to_tls else self.bench.port
        return f"{self.backend_address}:{port}"

    @property
    def backend_url(self):
        """The same for those that want a URL."""
        return f"{'https' if self.to_tls else 'http'}://{self.backend}"

    def is_here(self):
        """Whether its program is installed."""
        return self.needs is None or shutil.which(self.needs) is not None

    def start(self, defaults=False, to_tls=False):
        """Starts it anew and waits until it answers."""
        self.defaults, self.to_tls = defaults, to_tls
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.port, self.tls_port = free_port(self.address), free_port(self.address)
        self.session = self.spawn()
        deadline = time.monotonic() + self.patience
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.address}:{self.port}/", timeout=5):
                    return
            except OSError:
                if time.monotonic() > deadline or self.session.process.poll() is not None:
                    log = "".join(path.read_text(errors="replace")[-500:]
                                  for path in self.directory.glob("*.log"))
                    self.stop()
                    raise RuntimeError(f"{self.name} does not answer: {log}") from None
                time.sleep(0.02)

    def is_up(self):
        """Whether its first process runs."""
        return self.session is not None and self.session.process.poll() is None

    def stop(self):
        """Ends it with all its processes."""
        if self.session:
            self.session.stop()
            self.session = None

    def reload(self):
        """Makes it take its configuration anew."""
        os.kill(self.session.pid, self.reload_signal)

    def url(self, tls=False):
        """Where clients find it."""
        if tls:
            return f"wss://{self.address}:{self.tls_port}"
        return f"ws://{self.address}:{self.port}"

    def spawn(self):
        """Writes its configuration and starts it; its session."""
        raise NotImplementedError

    def write(self, name, text):
        """A file in its directory."""
        path = self.directory / name
        path.write_text(text)
        return path


class Direct(Peer):
    """No proxy."""

    name = "direct"
    note = "no proxy: the client and the back end by themselves"
    has_proxy = False

    def start(self, defaults=False, to_tls=False):
        pass

    def is_up(self):
        return True

    def url(self, tls=False):
        if tls:
            return f"wss://127.1.0.1:{self.bench.tls_port}"
        return f"ws://{self.backend}"


class Bare(Peer):
    """A relay without HTTP."""

    name = "bare-relay"
    can_reload = can_speak_tls_to_backends = False
    defaults_note = "its descriptors alone limit it, by default too"
    note = "tokio's copy_bidirectional, a thread per core, no HTTP"

    def spawn(self):
        session = Session([self.bench.wsload.path, "relay", self.backend,
                           f"plain={self.address}:0", f"tls={self.address}:0"], self.directory,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        answer = json.loads(session.process.stdout.readline())
        self.port, self.tls_port = answer["port"], answer["tls_port"]
        return session


class Apache(Peer):
    """Apache httpd with the event MPM and Debian's number of threads, without the module."""

    name = "apache"
    note = ("event MPM as Debian sets it: 2 children at first, 25 threads a child, 150 workers; "
            "ListenBacklog 4096; ProxyPass ... upgrade=websocket")
    reload_signal = signal.SIGUSR1
    most = 150
    # By default: what Debian's apache2ctl sets, unless APACHE_ULIMIT_MAX_FILES does.
    descriptors = 8192
    parameters = " upgrade=websocket"
    modules = ("mpm_event", "authz_core", "proxy", "proxy_http", "ssl")
    directives = ""
    defaults_note = "its workers are the limit, as in the other rows"
    # How it is run, and by which other program.
    mode, runner = ("-D", "FOREGROUND"), ()
    # Debian's mpm_event.conf.
    mpm = """StartServers 2
MinSpareThreads 25
MaxSpareThreads 75
ThreadLimit 64
ThreadsPerChild 25
MaxRequestWorkers 150
"""

    def spawn(self):
        modules = subprocess.run(["apxs", "-q", "LIBEXECDIR"], capture_output=True, text=True,
                                 check=False).stdout.strip() or "/usr/lib/apache2/modules"
        load = "".join(f'LoadModule {name}_module "{modules}/mod_{name}.so"\n'
                       for name in self.modules)
        user = http_user()
        # The back end's certificate has no name.
        to_tls = "SSLProxyEngine On\nSSLProxyCheckPeerName Off" if self.to_tls else ""
        configuration = self.write("httpd.conf", f"""ServerRoot "{self.directory}"
DefaultRuntimeDir "{self.directory}"
PidFile httpd.pid
ServerName bench.test
ErrorLog error.log
LogLevel warn
ListenBacklog 4096
Listen {self.address}:{self.port}
Listen {self.address}:{self.tls_port}
{f"User {user}" if user else ""}
{load}{self.mpm}
{self.directives}
{to_tls}
ProxyTimeout 3600
ProxyPass "/" "{self.backend_url}/"{self.parameters}
<VirtualHost {self.address}:{self.tls_port}>
    SSLEngine on
    {to_tls}
    SSLCertificateFile "{self.bench.certificate}"
    SSLCertificateKeyFile "{self.bench.key}"
    ProxyPass "/" "{self.backend_url}/"{self.parameters}
</VirtualHost>
""")
        limit = ["prlimit", f"--nofile={min(self.descriptors, self.bench.descriptors)}"] if self.defaults else []
        return Session([*self.runner, *limit, httpd(), "-f", configuration, *self.mode], self.directory)


class ApacheThreads(Apache):
    """The same with a thread for each of ten thousand tunnels."""

    name = "apache-10000"
    note = "the same with 500 threads a child, 10,000 workers"
    most = 10000
    mpm = """ServerLimit 20
ThreadLimit 500
StartServers 2
ThreadsPerChild 500
MaxRequestWorkers 10000
MinSpareThreads 500
MaxSpareThreads 10000
"""


class Forward(Apache):
    """The module without its relay."""

    name = "forward"
    note = "mod_wsforward in Apache as above (150 workers): WSForward On"
    parameters = ""

    @property
    def module(self):
        """The .so that it loads."""
        return self.bench.module

    @property
    def directives(self):
        return f'LoadModule wsforward_module "{self.module}"\nWSForward On\n'


class Relay(Forward):
    """The module with its relay."""

    name = "relay"
    note = ("mod_wsforward in Apache as above (150 workers): WSForward On, WSForwardRelay On; "
            "by default 8,192 descriptors a child, as Debian's apache2ctl sets")
    most = None
    has_smaller_defaults = True

    @property
    def directives(self):
        return super().directives + "WSForwardRelay On\n"


class Native(Relay):
    """The same, with the TLS sessions of tunnels outside of OpenSSL."""

    name = "native"
    is_only_tls = True
    note = "as relay, with WSForwardTLS native; only in rows with TLS, without it is relay"
    setting = "WSForwardTLS native\n"

    @property
    def directives(self):
        return super().directives + self.setting


class Rules(Relay):
    """The same with every rule for open tunnels and every limit, none of which anybody breaks, and the
    status page."""

    name = "rules"
    is_extra = True
    note = ("as relay, with every rule for open tunnels and every limit set, far from what is sent, and the "
            "status page")
    status = "/wsforward-status"
    # Pings are far apart: those of thousands of idle tunnels would be in every figure.
    rules = """WSForwardOrigin same
WSForwardExtensions none
WSForwardPing 1h 20s
WSForwardIdleTimeout 1h
WSForwardMaxLifetime 12h 10%
SetEnv WSFORWARD_EXPIRES +86400
WSForwardMaxMessage 2000000000 2000000000
WSForwardStrict On
WSForwardMessageRate 1000000/s
WSForwardBandwidth 100000000000/s
"""
    # Of the whole server.
    limits = """WSForwardMaxTunnels 1000000
WSForwardMaxTunnelsPerClient 1000000
WSForwardMaxTunnelsPerBackend 1000000
"""
    page = f"""ProxyPass "{status}" "!"
<Location "{status}">
    SetHandler wsforward-status
</Location>
"""
    modules = (*Relay.modules, "env")

    @property
    def directives(self):
        return super().directives + self.rules + self.limits + self.page


class Before(Relay):
    """The same with the module of another revision (`--against`)."""

    name = "before"

    @property
    def note(self):
        return f"as relay, with mod_wsforward {self.bench.before_version}"

    @property
    def module(self):
        return self.bench.before


class Nginx(Peer):
    """nginx."""

    name = needs = "nginx"
    note = "worker_connections as many as descriptors, by default Debian's 768"
    reload_signal = signal.SIGHUP
    has_smaller_defaults = True

    def spawn(self):
        user = http_user()
        temporary = "".join(f'    {kind}_temp_path "{self.directory}/{kind}";\n' for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        configuration = self.write("nginx.conf", f"""daemon off;
{f"user {user};" if user else ""}
worker_processes auto;
{"" if self.defaults else f"worker_rlimit_nofile {self.bench.descriptors};"}
pid "{self.directory}/nginx.pid";
error_log "{self.directory}/error.log";
events {{ worker_connections {768 if self.defaults else self.bench.descriptors}; }}
http {{
    access_log off;
{temporary}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen {self.address}:{self.port};
        listen {self.address}:{self.tls_port} ssl;
        ssl_certificate "{self.bench.certificate}";
        ssl_certificate_key "{self.bench.key}";
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass {self.backend_url};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $host;
            proxy_read_timeout 3600s;
        }}
    }}
}}
""")
        return Session([shutil.which(self.needs), "-p", self.directory, "-c", configuration,
                        "-e", self.directory / "error.log"], self.directory)


class HAProxy(Peer):
    """HAProxy."""

    name = needs = "haproxy"
    note = "mode http, timeout tunnel 1h, maxconn by its descriptors"
    defaults_note = "its descriptors alone limit it, by default too"
    reload_signal = signal.SIGUSR2

    def spawn(self):
        configuration = self.write("haproxy.cfg", f"""global
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend bench
    bind {self.address}:{self.port}
    bind {self.address}:{self.tls_port} ssl crt "{self.bench.directory}/both.pem" alpn http/1.1
    default_backend echo
backend echo
    server one {self.backend}{" ssl verify none" if self.to_tls else ""}
""")
        return Session([shutil.which(self.needs), "-W", "-db", "-f", configuration],
                       self.directory)


class Caddy(Peer):
    """Caddy."""

    name = needs = "caddy"
    note = "reverse_proxy"
    defaults_note = HAProxy.defaults_note

    def spawn(self):
        self.admin = f"{self.address}:{free_port(self.address)}"
        transport = " {\ntransport http {\ntls_insecure_skip_verify\n}\n}" if self.to_tls else ""
        proxy = f"reverse_proxy {self.backend_url}{transport}"
        self.configuration = self.write("Caddyfile", f"""{{
    admin {self.admin}
    auto_https off
    storage file_system "{self.directory}"
}}
http://:{self.port} {{
    bind {self.address}
    {proxy}
}}
https://:{self.tls_port} {{
    bind {self.address}
    tls "{self.bench.certificate}" "{self.bench.key}"
    {proxy}
}}
""")
        environment = {**os.environ, "HOME": str(self.directory)}
        return Session([shutil.which(self.needs), "run", "--config", self.configuration],
                       self.directory, env=environment)

    def reload(self):
        environment = {**os.environ, "HOME": str(self.directory)}
        subprocess.run([self.needs, "reload", "--force", "--config", self.configuration,
                        "--address", self.admin], check=True, capture_output=True, timeout=30,
                       env=environment)


def all_of(bench):
    """Every peer that can be had. An address of its own goes with each one's place."""
    return [kind(bench, index) for index, kind in enumerate(ALL)
            if kind is not Before or bench.before]


ALL = (Direct, Bare, Apache, ApacheThreads, Forward, Relay, Native, Rules, Before, Nginx, HAProxy, Caddy)
