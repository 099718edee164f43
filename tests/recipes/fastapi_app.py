"""A page whose WebSocket is where the application believes it to be, and remembers what it was told."""

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse

app = FastAPI()
PAGE = """<!DOCTYPE html>
<title>FastAPI</title><ul id="said"></ul>
<script>
const socket = new WebSocket("URL");
socket.onmessage = event => document.getElementById("said").append(event.data + " ");
</script>
"""


@app.get("/")
async def page(request: Request):
    return HTMLResponse(PAGE.replace("URL", str(request.url_for("talk"))))


@app.websocket("/talk")
async def talk(socket: WebSocket):
    await socket.accept()
    said = ""
    try:
        await socket.send_text(str(socket.url))
        while True:
            said += await socket.receive_text()
            await socket.send_text(said)
    except WebSocketDisconnect:
        pass
