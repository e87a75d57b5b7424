"""The least that a JupyterHub takes for a notebook server: it answers where it is told to be."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{os.environ['JUPYTERHUB_USER']} at {self.headers['Host']}{self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    where = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    print("serving", unquote(where.path), file=sys.stderr)
    ThreadingHTTPServer((where.hostname or "", where.port or 0), Handler).serve_forever()


if __name__ == "__main__":
    main()
