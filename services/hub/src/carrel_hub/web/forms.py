"""Reading forms. Anybody can send one, so it must cost little before it is known whose it is."""

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import Message

from carrel_hub.errors import InvalidRequestError, TooLargeError

MOST_FIELDS = 500
MOST_BYTES = 128 * 1024
"""Of a whole form."""

URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


async def read_fields(request: Request) -> list[tuple[str, str]]:
    """Return every text field of a form, in order; none of what is no form.

    Raises:
        InvalidRequestError: It has too many fields.
        TooLargeError: It is too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == URLENCODED:
        return _read_urlencoded(await _body(request))
    if kind == MULTIPART:
        return await _read_multipart(request, await _body(request))
    return []


async def _body(request: Request) -> bytes:
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > MOST_BYTES:
            raise TooLargeError(f"A form has at most {MOST_BYTES // 1024} KiB.")
    return bytes(found)


def _read_urlencoded(body: bytes) -> list[tuple[str, str]]:
    # Empty pairs are fields here too: the framework's reader takes a second for a million of them.
    if body.count(b"&") >= MOST_FIELDS:
        raise InvalidRequestError(f"A form has at most {MOST_FIELDS} fields.")
    return parse_qsl(body.decode("latin-1"), keep_blank_values=True)


async def _read_multipart(request: Request, body: bytes) -> list[tuple[str, str]]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    again = Request(request.scope, receive)
    async with again.form(max_files=0, max_fields=MOST_FIELDS, max_part_size=MOST_BYTES) as form:
        return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
