"""Heads that many responses share begin each of them as its own request and route want it."""

from itertools import product

from carrel_proxy.core.cookies import Fence
from carrel_proxy.core.framing import Body
from carrel_proxy.core.head import ResponseHead
from carrel_proxy.core.headers import heads_for
from carrel_proxy.core.opening import Opening, opening

SIZED = b"HTTP/1.1 200 OK\r\nServer: lab\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nServer: lab\r\nTransfer-Encoding: chunked\r\n\r\n"
WORKER = b"HTTP/1.1 200 OK\r\nService-Worker-Allowed: /user/alice/\r\nContent-Length: 5\r\n\r\n"
COOKIE = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 5\r\n\r\n"

ALICE = Fence(b"/user/alice/", b"", own_host=False)
BOB = Fence(b"/user/bob/", b"", own_host=False)


def begins(head: ResponseHead, fence: Fence | None = None) -> bytes:
    return opening(head, b"GET", 1, fence, keep_alive=True).data


def test_each_kind_of_request_has_its_own_opening() -> None:
    asked = list(product((SIZED, CHUNKED), (b"GET", b"HEAD"), (0, 1), (False, True)))

    def all_of_them() -> list[Opening]:
        found = []
        for data, method, minor, keep_alive in asked:
            head = heads_for(None).read(data)
            found.append(opening(head, method, minor, None, keep_alive=keep_alive))
        return found

    once = all_of_them()
    assert all_of_them() == once, "what is known already is the same"
    for (data, method, minor, keep_alive), (sent, body, onward, kept) in zip(
        asked, once, strict=True
    ):
        assert (body is Body.NONE) is (method == b"HEAD")
        until_close = body is Body.CHUNKED and minor == 0
        assert (onward is Body.UNTIL_CLOSE) is until_close
        assert kept is (keep_alive and not until_close)
        assert (b"Connection: close" in sent) is not kept
        assert (b"Content-Length: 5" in sent) is (data is SIZED)


def test_what_is_for_one_route_is_shared_with_none() -> None:
    for data, allowed in ((WORKER, b"Service-Worker-Allowed"), (COOKIE, b"Path=/user/alice/")):
        assert allowed in begins(heads_for(ALICE).read(data), ALICE)
        assert allowed not in begins(heads_for(BOB).read(data), BOB)
        assert allowed in begins(heads_for(ALICE).read(data), ALICE)
