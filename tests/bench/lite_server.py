#!/usr/bin/env -S python3 -S
"""The least that counts as a single-user server: it says yes where it is told to listen.

Starts of it measure the hub and what is around it, not Jupyter.
"""

import os
import socket

place = os.environ["JUPYTERHUB_SERVICE_URL"].removeprefix("http://").partition("/")[0]
host, _, port = place.rpartition(":")
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((host, int(port)))
listener.listen(64)
version = os.environ.get("JUPYTERHUB_VERSION", "6")
reply = f"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: {version}\r\nContent-Length: 2\r\n\r\nok"
while True:
    peer, _ = listener.accept()
    peer.recv(65536)
    peer.sendall(reply.encode())
    peer.close()
