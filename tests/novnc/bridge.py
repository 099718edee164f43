"""noVNC behind Flask: one /websockify for many containers.

A user logs in, opens the desktop of one container, and noVNC's page connects
to /websockify. The session cookie says who asks, the Referer which container
is meant (a browser sends none on a WebSocket handshake: then the session's
last page says it). The bytes of the WebSocket and of the container's TCP port
are bridged both ways.

    python bridge.py --listen 127.0.0.1:0 --ready-file F --user alice=secret \
        --container alice/desk=5901 [--novnc /usr/share/novnc]
"""

import argparse
import logging
import os
import re
import sys

import gevent
from flask import Flask, abort, current_app, redirect, request, send_from_directory, session
from gevent import socket
from gevent.pywsgi import WSGIServer
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import WebSocketHandler

log = logging.getLogger("bridge")
app = Flask(__name__, static_folder=None)


def container_of(path):
    """The container named by a page's address, /desk/NAME/..., or None."""
    found = re.search(r"/desk/([\w-]+)/", path or "")
    return found and found.group(1)


def refusal():
    """The answer to a user who may not have the container; None if they may.

    It must be known before the upgrade: gevent-websocket sends its 101 before
    the view runs.
    """
    if "user" not in session:
        return "Please log in", 401, {"WWW-Authenticate": 'Session realm="desktops"'}
    if session.get("expired"):
        return redirect("/login?next=/websockify")
    if wanted() not in current_app.config["CONTAINERS"].get(session["user"], {}):
        return f"{session['user']} has no such container", 403
    return None


def wanted():
    """Name of the container that this handshake is for."""
    return container_of(request.headers.get("Referer")) or session.get("container")


def refuse_before_upgrade(handler):
    """pre_start_hook of gevent-websocket: true means no upgrade, plain HTTP."""
    with app.request_context(handler.environ):
        return request.path == "/websockify" and refusal() is not None


@app.get("/login")
def login_page():
    return ("<form method=post><input name=user><input name=password type=password>"
            "<button>Log in</button></form>")


@app.post("/login")
def login():
    user = request.form["user"]
    if current_app.config["USERS"].get(user) != request.form["password"]:
        abort(401)
    session["user"] = user
    session["expired"] = "expired" in request.form
    return redirect("/", 303)


@app.get("/")
def index():
    names = current_app.config["CONTAINERS"].get(session.get("user"))
    if names is None:
        return redirect("/login")
    return "".join(f"<p><a href='/desk/{name}/vnc.html?autoconnect=true&resize=scale'>{name}</a>" for name in names)


@app.get("/desk/<name>/<path:file>")
def desktop(name, file):
    """noVNC's files, below the container's own address."""
    if name not in current_app.config["CONTAINERS"].get(session.get("user"), {}):
        abort(403)
    session["container"] = name
    return send_from_directory(current_app.config["NOVNC"], file)


# Werkzeug keeps requests that ask for an upgrade apart from those that do not.
@app.get("/websockify", websocket=True)
@app.get("/websockify")
def websockify():
    referer = request.headers.get("Referer")
    log.info("WebSocket request at /websockify with Referer: %s", referer)
    asked = request.headers.get("Upgrade", "").lower() == "websocket"
    if not asked:
        log.warning("NOT a WebSocket upgrade request")
        return "This address speaks WebSocket only", 400
    log.info("WebSocket upgrade request detected")
    refused = refusal()
    if refused is not None:
        log.info("Refused before the upgrade")
        return refused
    ws = request.environ.get("wsgi.websocket")
    if ws is None:
        log.error("wsgi.websocket object is NOT available")
        return "No WebSocket here", 500
    log.info("wsgi.websocket object is available")

    name = wanted()
    if container_of(referer):
        log.info("Found container from Referer: %s", name)
    else:
        log.info("Found container from session: %s", name)
    port = current_app.config["CONTAINERS"][session["user"]][name]
    log.info("Proxying WebSocket to container on port %d", port)
    try:
        container = socket.create_connection(("127.0.0.1", port), timeout=10)
    except OSError as error:
        log.error("Cannot connect to container port %d: %s", port, error)
        close(ws, 1011, "container is down")
        return ""
    container.settimeout(None)
    log.info("Successfully connected to container port %d", port)
    log.info("WebSocket upgrade successful, starting bidirectional proxy")
    bridge(ws, container)
    log.info("Bridge to container port %d closed", port)
    return ""


def bridge(ws, container):
    """Carries bytes both ways until either side is done."""

    def to_browser():
        while data := container.recv(65536):
            ws.send(data, binary=True)

    def to_container():
        while (message := ws.receive()) is not None:
            container.sendall(message.encode() if isinstance(message, str) else message)

    def quietly(carry):
        try:
            carry()
        except (WebSocketError, OSError) as error:
            log.info("%s ended: %s", carry.__name__, error)

    both = [gevent.spawn(quietly, to_browser), gevent.spawn(quietly, to_container)]
    gevent.wait(both, count=1)
    gevent.killall(both)
    container.close()
    if not ws.closed:
        close(ws, 1000, "the container hung up")


def close(ws, code, reason):
    """Ends the WebSocket with a code and a reason; gevent-websocket's own close() loses the code."""
    try:
        ws.send_frame(code.to_bytes(2, "big") + reason.encode(), ws.OPCODE_CLOSE)
    except WebSocketError:
        log.info("The browser is gone already")
    ws.closed = True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1:5020")
    parser.add_argument("--ready-file", help="the port goes in here once it listens")
    parser.add_argument("--user", action="append", default=[], metavar="NAME=PASSWORD")
    parser.add_argument("--container", action="append", default=[], metavar="USER/NAME=PORT")
    parser.add_argument("--novnc", default="/usr/share/novnc", help="folder of noVNC's page")
    args = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO,
                        format="%(asctime)s %(levelname)s %(message)s")

    containers = {}
    for spec in args.container:
        owner, name, port = re.fullmatch(r"([\w-]+)/([\w-]+)=(\d+)", spec).groups()
        containers.setdefault(owner, {})[name] = int(port)
    app.config.update(SECRET_KEY=os.urandom(32), CONTAINERS=containers, NOVNC=args.novnc,
                      USERS=dict(spec.split("=", 1) for spec in args.user))
    host, port = args.listen.rsplit(":", 1)
    server = WSGIServer((host, int(port)), app, handler_class=WebSocketHandler,
                        log=log, error_log=log)
    server.pre_start_hook = refuse_before_upgrade
    server.logger = log
    server.start()
    log.info("Listening on %s:%d", host, server.server_port)
    if args.ready_file:
        with open(args.ready_file + ".new", "w", encoding="ascii") as ready:
            ready.write(str(server.server_port))
        os.rename(args.ready_file + ".new", args.ready_file)
    server.serve_forever()


if __name__ == "__main__":
    main()
