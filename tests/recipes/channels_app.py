"""A Django site with a room of Channels: who entered by the form speaks there over a WebSocket."""

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import SessionMiddlewareStack
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.shortcuts import redirect
from django.template import engines
from django.urls import path

PAGE = """<!DOCTYPE html>
<title>Channels</title>
{% if name %}
<ul id="said"></ul>
<script>
const socket = new WebSocket("wss://" + location.host + "/room/");
socket.onmessage = event => document.getElementById("said").append(event.data + " ");
</script>
{% else %}
<form method="post">{% csrf_token %}<input name="name"><button>enter</button></form>
{% endif %}
"""


def page(request):
    if request.method == "POST":
        request.session["name"] = request.POST["name"]
        return redirect("/")
    return HttpResponse(engines["django"].from_string(PAGE).render({"name": request.session.get("name")}, request))


class Room(AsyncWebsocketConsumer):
    async def connect(self):
        # Without a name close() is a 403.
        self.said = self.scope["session"].get("name", "")
        if not self.said:
            await self.close()
            return
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()
        await self.send(self.said)

    async def receive(self, text_data=None, bytes_data=None):
        self.said += text_data
        await self.channel_layer.group_send("room", {"type": "heard", "text": self.said})

    async def heard(self, event):
        await self.send(event["text"])


urlpatterns = [path("", page)]
application = ProtocolTypeRouter({
    "http": get_asgi_application(),
    "websocket": AllowedHostsOriginValidator(SessionMiddlewareStack(URLRouter([path("room/", Room.as_asgi())]))),
})
