"""Whether a page of another origin made a browser send a request (Fetch Metadata, RFC 6454). Pure.

A cookie alone does not say that its owner meant a request: a page elsewhere can have sent it along.
`SameSite` keeps it from other sites, but neighbours on hosts below one domain are the same site.
"""

from carrel_proxy.core.head import RequestHead

_OWN = frozenset((b"same-origin", b"none"))
_READING = frozenset((b"GET", b"HEAD"))
_EMBEDDED = frozenset((b"iframe", b"frame", b"object", b"embed", b"fencedframe"))


def comes_from_elsewhere(
    head: RequestHead, own_origin: bytes, *, https: bool, host: bytes, websocket: bool
) -> bool:
    """Whether a cookie that came with this request must not count for it.

    Somebody who follows a link from elsewhere is let in; frames, scripts, images, forms and
    WebSockets of other origins are not. What says nothing of where it comes from is no browser's
    doing, or it is a reading request of one without TLS, whose answer another origin cannot see.

    Args:
        own_origin: The route's, where it has one of its own; empty where `host` is all there is.
        https: How the browser came.
        host: The host, with its port, as the browser has it.
    """
    site = head.values(b"sec-fetch-site")
    if site:
        foreign = len(site) > 1 or site[0].lower() not in _OWN
    else:
        origins = head.values(b"origin")
        foreign = bool(origins) and not _is_own(origins, own_origin, https=https, host=host)
    return foreign and not _is_followed_link(head, websocket=websocket)


def _is_own(origins: list[bytes], own_origin: bytes, *, https: bool, host: bytes) -> bool:
    if len(origins) > 1:
        return False
    origin = origins[0].lower()
    if own_origin:
        return origin == own_origin
    scheme, separator, authority = origin.partition(b"://")
    # A proxy before us may end TLS and not say so: only the other way round is it surely foreign.
    return bool(separator) and authority == host.lower() and (scheme == b"https" or not https)


def _is_followed_link(head: RequestHead, *, websocket: bool) -> bool:
    mode = head.values(b"sec-fetch-mode")
    return (
        not websocket
        and head.method in _READING
        and [value.lower() for value in mode] == [b"navigate"]
        and not _EMBEDDED.intersection(head.values(b"sec-fetch-dest"))
    )
