"""Every way into mod_proxy, as configuration of one virtual host."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Route:
    """`path` leads by `directives` to the back end named `to`; braces name the back ends' URLs."""

    name: str
    path: str
    directives: str
    to: str = "tcp"
    #: What the back end sees as request target; None where it is a file name of httpd's.
    target: str = "/echo"
    #: The first httpd that has it: those before answer 500 themselves.
    since: tuple = (2, 4, 47)

    def __str__(self):
        return self.name


def _urls(backends):
    tcp, tls, unix = backends["tcp"], backends["tls"], backends["unix"]
    return {"http": tcp.url("http", ""), "ws": tcp.url("ws", ""), "https": tls.url("https", ""),
             "wss": tls.url("wss", ""), "unix_http": unix.url("http", ""),
             "unix_ws": unix.url("ws", "")}  # fmt: skip


SCHEMES = {"http": "tcp", "https": "tls", "ws": "tcp", "wss": "tls", "unix_http": "unix", "unix_ws": "unix"}


def _each(name, slug, directives, schemes=SCHEMES, target="/echo", since=Route.since):
    return [
        Route(f"{name} {scheme.replace('_', ': ')}", f"/{slug}-{scheme}/echo",
              directives.replace("PATH", f"/{slug}-{scheme}").replace("URL", f"{{{scheme}}}")
              .replace("NAME", f"{slug}-{scheme}".replace("_", "-")),
              SCHEMES[scheme], target, since)
        for scheme in schemes
    ]  # fmt: skip


ROUTES = [
    *_each("RewriteRule [P], server,", "rewrite", 'RewriteRule "^PATH/(.*)" "URL/$1" [P]'),
    *_each("RewriteRule [P], Directory,", "directory",
           """<Directory "{htdocs}PATH">
    RewriteEngine On
    RewriteRule "^(.*)" "URL/$1" [P]
</Directory>""", ["http", "wss"]),
    *_each("RewriteRule [P], Directory,", "directory",
           """<Directory "{htdocs}PATH">
    RewriteEngine On
    RewriteRule "^(.*)" "URL/$1" [P]
</Directory>""", ["unix_http"], since=(2, 4, 63)),
    Route("RewriteRule [P], .htaccess, http", "/htaccess/echo", """<Directory "{htdocs}/htaccess">
    AllowOverride FileInfo
</Directory>"""),
    *_each("RewriteRule [P], Location,", "location-rewrite", """<Location "PATH">
    RewriteEngine On
    RewriteRule "/([a-z]+)$" "URL/$1" [P]
</Location>""", ["http"]),
    *_each("ProxyPass", "pass", 'ProxyPass "PATH" "URL"'),
    *_each("ProxyPassMatch", "match", 'ProxyPassMatch "^PATH/(.*)" "URL/$1"',
           ["http", "https", "ws", "wss"]),
    *_each("Location ProxyPass", "location", """<Location "PATH">
    ProxyPass "URL"
</Location>"""),
    *_each("SetHandler, Location,", "handler", """<Location "PATH">
    SetHandler "proxy:URL"
</Location>""", target=None),
    *_each("SetHandler, FilesMatch,", "files", """<Directory "{htdocs}PATH">
    <FilesMatch "^echo$">
        SetHandler "proxy:URL"
    </FilesMatch>
</Directory>""", ["http", "unix_http"], target=None),
    *_each("ProxyPass balancer,", "balanced", """<Proxy "balancer://NAME">
    BalancerMember "URL"
</Proxy>
ProxyPass "PATH" "balancer://NAME\""""),
    *_each("RewriteRule [P] balancer,", "rewrite-balanced", """<Proxy "balancer://NAME">
    BalancerMember "URL"
</Proxy>
RewriteRule "^PATH/(.*)" "balancer://NAME/$1" [P]""", ["http", "https"]),
]  # fmt: skip


def directives(server, backends, routes=ROUTES):
    """The lines of a virtual host with all routes; makes the directories that they need."""
    urls = _urls(backends)
    server.page("htaccess/.htaccess", f'RewriteEngine On\nRewriteRule "^(.*)" "{urls["http"]}/$1" [P]\n')
    for route in routes:
        server.page(route.path.strip("/"), "a file\n")
    lines = ["RewriteEngine On", "SSLProxyEngine on", "SSLProxyVerify require",
             f"SSLProxyCACertificateFile {server.certificate.cert}"]  # fmt: skip
    for route in routes:
        text = route.directives
        for name, url in urls.items():
            text = text.replace(f"{{{name}}}", url)
        lines.append(text.replace("{htdocs}", str(server.htdocs)))
    return "\n".join(lines)
