"""A Socket.IO server that says which member it is, and remembers what a session said."""

import os

import socketio

# The default of cors_allowed_origins: Origin must be the scheme and Host of the request.
server = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(server)


@server.event
async def where(_sid):
    return os.environ["MEMBER"]


@server.event
async def say(sid, text):
    async with server.session(sid) as session:
        session["said"] = session.get("said", "") + text
        return [os.environ["MEMBER"], session["said"]]
