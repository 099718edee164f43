"""noVNC behind Flask and gevent-websocket, by the vhost recipe."""
