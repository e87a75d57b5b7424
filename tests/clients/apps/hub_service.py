"""A service that signs people in with JupyterHub, by the library that all of them use."""

import json
import os
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler, authenticated


class Me(HubOAuthenticated, RequestHandler):
    @authenticated
    def get(self) -> None:
        user = self.get_current_user()
        cookies = {name: morsel.value for name, morsel in self.request.cookies.items()}
        self.write(json.dumps({"user": user["name"], "cookies": cookies}))


def main() -> None:
    prefix = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
    callback = (f"{prefix}oauth_callback", HubOAuthCallbackHandler)
    application = Application([(prefix, Me), callback], cookie_secret=os.urandom(32))
    where = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    application.listen(where.port, address=where.hostname)
    IOLoop.current().start()


if __name__ == "__main__":
    main()
