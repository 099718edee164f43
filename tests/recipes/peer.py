"""An end of WebSockets that echoes messages, by a library:

    peer.py LIBRARY serve PORT     a server
    peer.py LIBRARY echo URL       a client that echoes what it is told
    peer.py LIBRARY talk URL       a client that talks to an echo, is silent for a while, and closes

A client prints the code with which it was closed.
"""

import asyncio
import os
import sys

#: What `talk` says, and how many seconds it is silent after the first.
MESSAGES = ["text", "x" * 70_000, os.urandom(300_000), ""]
SILENCE = 2.2


async def talk(say, hear):
    """The conversation of a client."""
    for message in MESSAGES:
        await say(message)
        heard = await hear()
        assert heard == message, f"{len(message)} sent, {heard!r:.80}"
        if message is MESSAGES[0]:
            await asyncio.sleep(SILENCE)


async def websockets_serve(port):
    from websockets.asyncio.server import serve

    async def echo(socket):
        async for message in socket:
            await socket.send(message)
    async with serve(echo, "127.0.0.1", port, max_size=None, ping_interval=None):
        await asyncio.Future()


async def websockets_connect(url, is_talk):
    from websockets.asyncio.client import connect

    async with connect(url, proxy=None, max_size=None, ping_interval=None) as socket:
        if is_talk:
            await talk(socket.send, socket.recv)
        else:
            async for message in socket:
                await socket.send(message)
    return socket.close_code


async def aiohttp_serve(port):
    from aiohttp import web

    async def echo(request):
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            await (socket.send_bytes if isinstance(message.data, bytes) else socket.send_str)(message.data)
        return socket
    app = web.Application()
    app.router.add_get("/{path:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Future()


async def aiohttp_connect(url, is_talk):
    import aiohttp

    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, max_msg_size=0, compress=15 if is_talk else 0) as socket:
            async def say(message):
                await (socket.send_bytes if isinstance(message, bytes) else socket.send_str)(message)

            async def hear():
                message = await socket.receive()
                assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
                return message.data
            if is_talk:
                await talk(say, hear)
                await socket.close()
            else:
                async for message in socket:
                    await say(message.data)
    return socket.close_code


async def tornado_serve(port):
    import tornado.web
    import tornado.websocket

    class Echo(tornado.websocket.WebSocketHandler):
        def get_compression_options(self):
            return {}

        async def on_message(self, message):
            await self.write_message(message, isinstance(message, bytes))
    tornado.web.Application([("/.*", Echo)], websocket_max_message_size=1 << 30).listen(port, "127.0.0.1")
    await asyncio.Future()


async def tornado_connect(url, is_talk):
    from tornado.websocket import websocket_connect

    socket = await websocket_connect(url, compression_options={} if is_talk else None)

    async def say(message):
        await socket.write_message(message, isinstance(message, bytes))
    if is_talk:
        await talk(say, socket.read_message)
        socket.close(1000)
        assert await socket.read_message() is None
    else:
        while (message := await socket.read_message()) is not None:
            await say(message)
    return socket.close_code


def gevent_serve(port):
    from gevent.pywsgi import WSGIServer
    from geventwebsocket.handler import WebSocketHandler

    def echo(environ, _start):
        socket = environ["wsgi.websocket"]
        while (message := socket.receive()) is not None:
            socket.send(message, binary=not isinstance(message, str))
        return []
    WSGIServer(("127.0.0.1", port), echo, handler_class=WebSocketHandler).serve_forever()


def main():
    library, role, where = sys.argv[1:]
    if library == "gevent":
        gevent_serve(int(where))
    elif role == "serve":
        asyncio.run(globals()[f"{library}_serve"](int(where)))
    else:
        print(asyncio.run(globals()[f"{library}_connect"](where, role == "talk")))


if __name__ == "__main__":
    main()
