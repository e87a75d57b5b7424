"""All pages in one place, in the order in which they are asked.

`router` goes below the hub's path without its last slash (`/hub`); `outside_router` below the base
path without its last slash, after everything else, since it takes whatever is left.
"""

from carrel_hub.late_routes import LateRouter
from carrel_hub.web import (
    accept_share,
    admin,
    assets,
    history,
    home,
    hosts,
    outside,
    pending,
    proxy_errors,
    reports,
    share,
    sign_in,
    spawn,
    stopped_servers,
    tokens,
)

router = LateRouter()
for part in (
    assets,
    home,
    history,
    admin,
    hosts,
    sign_in,
    spawn,
    pending,
    tokens,
    accept_share,
    share,
    stopped_servers,
    proxy_errors,
    reports,
):
    router.take(part.router)

outside_router = LateRouter()
outside_router.take(outside.router)
