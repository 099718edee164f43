"""The text of an httpd configuration."""

import functools
import os
import pwd
import subprocess
import tempfile

from . import paths

#: What every server of the tests loads, besides the MPM. Debian's httpd has some of it built in.
BASE = ("unixd", "authz_core", "authz_host", "alias", "dir", "env", "headers", "log_config", "logio", "mime",
        "rewrite", "setenvif", "slotmem_shm", "socache_shmcb", "ssl", "status",
        "lbmethod_byrequests")  # fmt: skip
PROXY = ("proxy", "proxy_http", "proxy_balancer")

#: The MPMs with threads.
WITH_THREADS = """StartServers 1
ServerLimit 16
ThreadLimit 32
ThreadsPerChild 32
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64
"""
#: Small and steady: one child of event and worker, so that a test can watch its memory.
MPM = {
    "event": WITH_THREADS,
    "worker": WITH_THREADS,
    "prefork": """StartServers 4
ServerLimit 32
MaxRequestWorkers 32
MinSpareServers 1
MaxSpareServers 32
""",
}


#: Modules that an httpd may have been built without: for want of a library, or since few use it. The others are needed.
OPTIONAL = {"http2", "log_forensic"}
#: Directives that only newer versions of a module have.
NEWER = {"H2WebSockets": "http2"}


class NotInThisHttpd(paths.Missing):
    """This httpd cannot have that MPM, was built without that module, or is too old for that directive."""


def load_modules(mpm, module, order, wstunnel, extra, without):
    """The LoadModule lines: mod_proxy `before` or `after` the module in `module` (None: without)."""
    ours = [f"LoadModule wsforward_module {module}"] if module else []
    proxy = [load(name) for name in (*PROXY, *(["proxy_wstunnel"] if wstunnel else []))
             if name not in without]
    rest = [load(name) for name in dict.fromkeys((*BASE, *extra)) if name not in without]
    groups = {"proxy first": [rest, proxy, ours], "proxy last": [rest, ours, proxy], "ours first": [ours, rest, proxy]}[order]
    return "\n".join(filter(None, [_load_mpm(mpm), *(line for group in groups for line in group)]))


def _load_mpm(mpm):
    built_in = static_mpm()
    if built_in not in (mpm, None):
        raise NotInThisHttpd(f"this httpd has the MPM {built_in} built in, not {mpm}")
    return "" if built_in else load(f"mpm_{mpm}")


def static_mpm():
    """The MPM that is compiled into httpd, None where it is a module."""
    # Listed by the names of their files: event.c, worker.c, prefork.c.
    return next((mpm for mpm in MPM if mpm in paths.static_modules()), None)


def load(name):
    """The LoadModule line of one of httpd's modules, "" for one that is compiled in."""
    if name in paths.static_modules():
        return ""
    file = paths.module_file(name)
    if not file:
        missing = NotInThisHttpd if name in OPTIONAL else paths.Missing
        raise missing(f"mod_{name}.so is not in {paths.apxs('LIBEXECDIR')}")
    return f"LoadModule {name}_module {file}"


def user():
    """User and Group lines: httpd started as root needs others than root."""
    if os.geteuid() != 0:
        return ""
    for name in ("www-data", "apache", "daemon", "nobody"):
        try:
            group = pwd.getpwnam(name).pw_gid
        except KeyError:
            continue
        return f"User {name}\nGroup #{group}"
    raise paths.Missing("a user for httpd's children")


def server(directory, modules, mpm, status_port, directives):
    """The server part of the configuration."""
    return f"""# Made by the tests.
ServerRoot {directory}
DefaultRuntimeDir {directory}
PidFile {directory}/httpd.pid
ServerName site.test
{modules}
{tls(modules)}
{user()}
{MPM[mpm]}
Timeout 20
KeepAlive On
KeepAliveTimeout 15
MaxKeepAliveRequests 0
GracefulShutdownTimeout 5
HostnameLookups Off
ErrorLog {directory}/error.log
LogLevel notice {directives_loglevel(modules)}
LogFormat "%h \\"%r\\" %>s %b %X %P" tests
CustomLog {directory}/access.log tests
TypesConfig /dev/null
DocumentRoot {directory}/htdocs
<IfModule ssl_module>
    SSLSessionCache shmcb:{directory}/ssl(512000)
</IfModule>
<Directory />
    Require all denied
    AllowOverride None
</Directory>
<Directory {directory}/htdocs>
    Require all granted
</Directory>
Listen 127.0.0.1:{status_port}
<VirtualHost 127.0.0.1:{status_port}>
    RewriteEngine Off
    CustomLog /dev/null tests
    <Location />
        SetHandler server-status
        Require all granted
    </Location>
</VirtualHost>
{directives}
"""


@functools.cache
def has_directive(module, directive):
    """Whether that module of httpd has it."""
    lines = [_load_mpm(static_mpm() or "event"), load(module), f"<IfDirective {directive}>", 'Error "it has it"', "</IfDirective>"]
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write("\n".join(lines))
        file.flush()
        said = subprocess.run([paths.httpd(), "-d", "/tmp", "-f", file.name, "-t"], capture_output=True, text=True).stderr
    return "it has it" in said


def check_known(text):
    """Raises NotInThisHttpd for a configuration with a directive that this httpd has not yet."""
    for directive, module in NEWER.items():
        if directive in text and not has_directive(module, directive):
            raise NotInThisHttpd(f"mod_{module} of this httpd has no {directive}")


def tls(modules):
    """`WSF_TLS=native` in the environment has the TLS sessions of every server leave OpenSSL, where a test says nothing
    else. An older module that a test compares with does without."""
    wanted = os.environ.get("WSF_TLS")
    if not wanted or "wsforward_module" not in modules:
        return ""
    return f"<IfDirective WSForwardTLS>\nWSForwardTLS {wanted}\n</IfDirective>"


def directives_loglevel(modules):
    """The module under test tells more than the others."""
    return "wsforward:debug" if "wsforward_module" in modules else ""


def vhost(listen, directives, certificate=None):
    """A virtual host with an address and port of its own; TLS with a `certificate`."""
    tls = ""
    if certificate:
        tls = f"""    SSLEngine on
    SSLCertificateFile {certificate.cert}
    SSLCertificateKeyFile {certificate.key}
"""
    indented = "\n".join(f"    {line}" for line in directives.strip("\n").splitlines())
    return f"""Listen {listen}
<VirtualHost {listen}>
    ServerName site.test
{tls}{indented}
</VirtualHost>
"""
