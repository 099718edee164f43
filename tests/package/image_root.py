"""The steps of contrib/docker/Dockerfile in clean roots, where no engine is: what an engine would do, with chroot.

image_root.py FOLDER [SUITE]: run as root, with a network (Debian's archive, Rust's). FOLDER keeps what takes the place
of the official image: Debian's httpd, at the places of that image's. It takes a quarter of an hour.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from harness import wait  # noqa: E402
from harness.dockerfile import instructions  # noqa: E402
from harness.herd import Herd  # noqa: E402

DOCKERFILE = ROOT / "contrib" / "docker" / "Dockerfile"
MIRROR = "http://deb.debian.org/debian"
PREFIX = "/usr/local/apache2"
ENVIRONMENT = {"PATH": f"{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
               "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}  # fmt: skip
#: The image's httpd is built from source; its headers and its apxs are there, no compiler and no -dev package but these
#: that Debian's apxs needs.
HTTPD = rf"""
apt-get update
apt-get install -y --no-install-recommends apache2-bin apache2-dev media-types
mkdir -p {PREFIX}/bin {PREFIX}/conf/extra {PREFIX}/logs
cp -r /usr/lib/apache2/modules {PREFIX}/modules
cat >{PREFIX}/bin/apxs <<'END'
#!/bin/sh
exec /usr/bin/apxs -S LIBEXECDIR={PREFIX}/modules "$@"
END
cat >{PREFIX}/bin/httpd <<'END'
#!/bin/sh
exec /usr/sbin/apache2 -d {PREFIX} -f conf/httpd.conf "$@"
END
cat >/usr/local/bin/httpd-foreground <<'END'
#!/bin/sh
set -e
rm -f {PREFIX}/logs/httpd.pid
exec httpd -DFOREGROUND "$@"
END
chmod 755 {PREFIX}/bin/* /usr/local/bin/httpd-foreground
cat >{PREFIX}/conf/httpd.conf <<'END'
Listen 80
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_host_module modules/mod_authz_host.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule mime_module modules/mod_mime.so
LoadModule env_module modules/mod_env.so
TypesConfig /etc/mime.types
PidFile logs/httpd.pid
ServerName localhost
User www-data
Group www-data
ErrorLog /proc/self/fd/2
END
"""


#: Whom this machine trusts, where it says so (a proxy may have a certificate of its own), and how programs are told.
TRUST, TRUSTED = os.environ.get("SSL_CERT_FILE"), "/etc/ssl/machine.pem"
TRUSTING = dict.fromkeys(["SSL_CERT_FILE", "CURL_CA_BUNDLE", "CARGO_HTTP_CAINFO"], TRUSTED) if TRUST else {}


def run_in(root, script, **environment):
    """A shell script in a root."""
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        subprocess.run(["chroot", root, "sh", "-ec", script], check=True, stdin=subprocess.DEVNULL,
                       env={**ENVIRONMENT, **TRUSTING, **environment})  # fmt: skip
    finally:
        subprocess.run(["umount", "-l", root / "proc"], check=True)


def kept(folder, name, make):
    """A root that is made once."""
    root, stamp = folder / name, folder / f"{name}.complete"
    if not stamp.exists():
        shutil.rmtree(root, ignore_errors=True)
        make(root)
        stamp.touch()
    return root


def official(folder, suite):
    """What takes the place of httpd:2.4."""
    base = kept(folder, "base", lambda root: subprocess.run(["debootstrap", "--variant=minbase", suite, root, MIRROR], check=True))

    def build(root):
        subprocess.run(["cp", "-a", base, root], check=True)
        (root / "etc/apt/sources.list").write_text(f"deb {MIRROR} {suite} main\n")
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        if TRUST:
            (root / "etc/ssl").mkdir(exist_ok=True)
            shutil.copy(TRUST, root / TRUSTED.lstrip("/"))
        run_in(root, HTTPD)
    return kept(folder, "httpd", build)


def copy(sources, target):
    """As COPY does with files, and with the whole of the context: what git knows."""
    if sources == [ROOT]:
        target.mkdir(parents=True)
        listed = subprocess.run(["git", "-C", ROOT, "-c", f"safe.directory={ROOT}", "ls-files", "-z"], check=True, capture_output=True)
        subprocess.run(["tar", "-C", ROOT, "-c", "--null", "-T", "-", "-f", target / ".tar"], check=True, input=listed.stdout)
        subprocess.run(["tar", "-C", target, "-x", "-f", target / ".tar"], check=True)
        (target / ".tar").unlink()
        return
    target.mkdir(parents=True, exist_ok=True)
    for source in sources:
        shutil.copy(source, target)


def build(folder, image):
    """Every step of the Dockerfile; returns the root of its last stage, its environment and its command."""
    stages, root, environment, command = {}, None, {}, None
    # Shared cores: LTO of the module takes longer than all the rest.
    faster = {name: value for name, value in os.environ.items() if name.startswith("CARGO_PROFILE_")}
    for number, (word, rest) in enumerate(instructions(DOCKERFILE)):
        print(f"== {word} {rest}", flush=True)
        if word == "FROM":
            root, environment = folder / f"stage-{number}", {}
            stages[rest.partition(" AS ")[2]] = root
            shutil.rmtree(root, ignore_errors=True)
            subprocess.run(["cp", "-a", image, root], check=True)
        elif word == "RUN":
            run_in(root, rest, **environment, **faster)
        elif word == "COPY":
            source, *more = shlex.split(rest)
            stage = re.fullmatch("--from=(.*)", source)
            *sources, target = more if stage else [source, *more]
            origin = stages[stage[1]] if stage else ROOT
            copy([(origin / source.lstrip("/")).resolve() for source in sources], root / target.lstrip("/"))
        elif word == "ENV":
            environment |= [rest.split("=", 1)]
        elif word == "CMD":
            command = re.findall(r'"([^"]*)"', rest)
    return root, environment, command


def use(root, command):
    """In a network of its own: from its start to its graceful stop, with tunnels."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    herd = Herd()
    process = subprocess.Popen(["chroot", root, *command], env={**ENVIRONMENT, "BACKEND": herd.url("http")})
    is_ready = lambda: subprocess.run(["chroot", root, "is-ready"], stderr=subprocess.DEVNULL).returncode == 0  # noqa: E731
    wait.until(is_ready, "it is ready", 30)
    closed = herd.open(80, 20)
    (root / "run/wsforward/ready").unlink()
    wait.until(lambda: not is_ready(), "it is not ready")
    process.send_signal(signal.SIGWINCH)
    herd.hang_up()
    assert process.wait(30) == 0
    herd.ends(closed)
    print("ok", flush=True)


def main():
    if sys.argv[1] == "--use":
        use(Path(sys.argv[2]), sys.argv[3:])
        return
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    image = official(folder, sys.argv[2] if len(sys.argv) > 2 else "trixie")
    root, _, command = build(folder, image)
    subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                    sys.executable, __file__, "--use", root, *command], check=True)  # fmt: skip
    for stage in folder.glob("stage-*"):
        shutil.rmtree(stage)


if __name__ == "__main__":
    main()
