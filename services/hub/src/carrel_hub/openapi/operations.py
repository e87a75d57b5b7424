"""What each call takes and all it may answer, by the name of the function that answers it.

Beside what is said here every call may be refused as `ALWAYS` says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from carrel_hub.openapi.schemas import (
    FLAG,
    HOST_KEYS,
    NUMBER,
    OBJECT,
    TEXT,
    TEXT_OR_NULL,
    TIME,
    Schema,
    listing,
    maybe_paged,
    paged,
    ref,
    shape,
)

JSON, PLAIN, FORM = "application/json", "text/plain", "application/x-www-form-urlencoded"
STREAM = "text/event-stream"

ALWAYS: Mapping[int, str] = {
    400: "The request cannot be understood, or asks for what cannot be.",
    403: "Nobody is asking, or nobody who may.",
    413: "The body has more than 1 MiB.",
    503: "The database, or a host, does not answer right now.",
}
CHANGING: Mapping[int, str] = {409: "Something else is in the way."}
"""What a call that changes something may answer beside."""

NOT_FOUND: Mapping[int, str] = {404: "There is no such thing, or none the caller may know of."}
MANY_STREAMS: Mapping[int, str] = {429: "The caller has as many such streams open as may be."}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that is no refusal.

    Attributes:
        schema: Of what is in it; None for an empty body.
        kind: Its media type; None for an answer without a body and without a type.
        or_text: It may be plain text instead.
    """

    words: str
    schema: Schema | None = None
    kind: str | None = JSON
    or_text: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """What one call takes and answers.

    Attributes:
        answers: By their status.
        refusals: Beside those of every call: what they mean.
        error: The shape of refusals.
        body: The shape of the body; None for none.
        needs_body: Without one it is refused.
        body_kind: Its media type.
        query: Parameters of the address.
    """

    answers: Mapping[int, Answer]
    refusals: Mapping[int, str] = field(default_factory=dict)
    error: Schema = field(default_factory=lambda: ref("Error"))
    body: Schema | None = None
    needs_body: bool = False
    body_kind: str = JSON
    query: Mapping[str, Schema] = field(default_factory=dict)


def _found(schema: Schema, **query: Schema) -> Operation:
    return Operation({200: Answer("This is it.", schema)}, NOT_FOUND, query=query)


def _list(schema: Schema, **query: Schema) -> Operation:
    return Operation({200: Answer("What there is.", schema)}, query=query)


_GONE = Operation({204: Answer("Done.", kind=None)}, NOT_FOUND)
_DONE = Answer("Done.", kind=PLAIN)
_PAGE: dict[str, Schema] = {"limit": NUMBER, "offset": NUMBER}
_STOPPED: dict[str, Schema] = {"include_stopped_servers": TEXT}
_NAMES = shape({"users": listing(TEXT)})
_USER_BODY = shape(
    optional={
        "name": TEXT,
        "admin": FLAG,
        "groups": listing(TEXT),
        "roles": listing(TEXT),
        "auth_state": OBJECT,
    }
)
_LIMIT_VALUES: Schema = {
    "memory": {"type": ["integer", "string", "null"]},
    "cpu": {"type": ["number", "null"]},
    "processes": {"type": ["integer", "null"]},
    "open_files": {"type": ["integer", "null"]},
    "advisory": FLAG,
}
_USAGE = shape(
    {
        "memory": {"type": ["integer", "null"]},
        "memory_peak": {"type": ["integer", "null"]},
        "cpu_seconds": {"type": ["number", "null"]},
        "processes": {"type": ["integer", "null"]},
        "limits": shape(
            {
                "memory": {"type": ["integer", "null"]},
                "cpu": {"type": ["number", "null"]},
                "processes": {"type": ["integer", "null"]},
                "open_files": {"type": ["integer", "null"]},
                "advisory": FLAG,
            }
        ),
        "unenforced": listing(TEXT),
    }
)
_LINES: dict[str, Schema] = {"lines": {"type": "integer", "minimum": 1, "maximum": 2000}}
_PROGRESS: Schema = {
    "type": "object",
    "properties": {
        "data": {
            "type": "string",
            "contentMediaType": JSON,
            "contentSchema": ref("ProgressEvent"),
        }
    },
    "required": ["data"],
}
_EVENTS: dict[str, Schema] = {
    "limit": NUMBER,
    "before": NUMBER,
    "since": TIME,
    "until": TIME,
    "kind": TEXT,
    "actor": TEXT,
    "subject": TEXT,
}
_SHARES = paged(listing(ref("Share")))
_RECIPIENT = shape(optional={"user": TEXT, "group": TEXT, "scopes": listing(TEXT)})

OPERATIONS: Mapping[str, Operation] = {
    # -- the hub
    "root": Operation({200: Answer("The version of the API.", shape({"version": TEXT}))}),
    "health": Operation({200: Answer("It serves.", kind=None)}),
    "describe": Operation({200: Answer("This document.", OBJECT)}),
    "info": _list(
        shape(
            {
                "version": TEXT,
                "python": TEXT,
                "sys_executable": TEXT,
                "spawner": shape({"class": TEXT, "version": TEXT}),
                "authenticator": shape({"class": TEXT, "version": TEXT}),
            }
        )
    ),
    "get_routes": _list(
        maybe_paged({"type": "object", "additionalProperties": ref("Route")}), **_PAGE
    ),
    "check_routes": Operation({200: _DONE}),
    "patch_proxy": Operation({}, body=OBJECT),
    "shutdown": Operation(
        {202: Answer("It ends.", shape({"message": TEXT}))},
        body=shape(optional={"proxy": FLAG, "servers": FLAG}),
    ),
    "metrics": Operation({200: Answer("For Prometheus.", TEXT, PLAIN)}),
    "get_events": _list(ref("Events"), **_EVENTS),
    # -- hosts
    "list_hosts": _list(
        shape({"hosts": listing({"oneOf": [ref("Host"), ref("AwaitedHost")]})}),
    ),
    "make_token": Operation(
        {
            201: Answer(
                "What the host joins with.",
                shape({"name": TEXT, "token": TEXT, "expires_at": TIME}),
            )
        },
        NOT_FOUND,
        body=shape(optional={"expires_in": NUMBER}),
    ),
    "drain": _found(ref("Host")),
    "take_in": _found(ref("Host")),
    "accept": _found(ref("Host")),
    "empty": Operation(
        {202: Answer("Its servers are ending.", shape({**HOST_KEYS, "stopping": listing(TEXT)}))},
        NOT_FOUND,
    ),
    "remove": Operation(
        {204: Answer("Done.", kind=None)},
        NOT_FOUND,
        body=shape(optional={"servers": {"enum": ["lost", None]}}),
    ),
    "forget_account": _GONE,
    # -- people
    "whoami": _list(ref("Identity"), **_STOPPED),
    "whose_cookie": _found(ref("User")),
    "admin_access": Operation({}, NOT_FOUND),
    "whose_token": _found({"anyOf": [ref("User"), ref("Service")]}),
    "get_users": _list(
        maybe_paged(listing(ref("User"))),
        **_PAGE,
        **_STOPPED,
        state={"enum": ["active", "ready", "inactive"]},
        name_filter=TEXT,
        sort={"enum": ["id", "-id", "name", "-name", "last_activity", "-last_activity"]},
    ),
    "post_users": Operation(
        {201: Answer("Those that are new.", listing(ref("User")))},
        body=shape({"usernames": listing(TEXT)}, {"admin": FLAG}),
        needs_body=True,
    ),
    "get_user": _found(ref("User"), **_STOPPED),
    "post_user": Operation({201: Answer("The new user.", ref("User"))}, NOT_FOUND, body=_USER_BODY),
    "patch_user": Operation(
        {200: Answer("The user as it is now.", ref("User"))},
        NOT_FOUND,
        body=_USER_BODY,
        needs_body=True,
    ),
    "remove_user": _GONE,
    "post_activity": Operation(
        {200: _DONE},
        NOT_FOUND,
        body=shape(
            optional={
                "last_activity": TIME,
                "servers": {
                    "type": "object",
                    "additionalProperties": shape({"last_activity": TIME}),
                },
            }
        ),
        needs_body=True,
    ),
    # -- servers
    "get_server": _found(ref("Server")),
    "make_server": Operation(
        {201: Answer("The new server.", ref("Server"))}, NOT_FOUND, body=OBJECT
    ),
    "patch_server": Operation(
        {200: Answer("The server as it is now.", ref("Server"))},
        NOT_FOUND,
        body=shape(optional={"name": TEXT, "display_name": TEXT, "user_options": OBJECT}),
        needs_body=True,
    ),
    "start_server": Operation(
        {
            201: Answer("It is ready.", kind=PLAIN),
            202: Answer("It is starting, or waits for its turn.", kind=PLAIN),
        },
        {
            **NOT_FOUND,
            429: "Too many servers are active, or too many starts wait.",
            500: "The start failed; the message says why.",
        },
        body=OBJECT,
    ),
    "stop_server": Operation(
        {
            202: Answer("It is stopping.", kind=PLAIN),
            204: Answer("None runs.", kind=None),
        },
        NOT_FOUND,
        body=shape(optional={"remove": FLAG}),
    ),
    "progress": Operation(
        {200: Answer("The start, as events.", _PROGRESS, STREAM)}, {**NOT_FOUND, **MANY_STREAMS}
    ),
    "usage": _found(_USAGE),
    "change_limits": Operation(
        {200: Answer("What it uses, and the limits.", _USAGE)},
        NOT_FOUND,
        body=shape(optional=_LIMIT_VALUES),
    ),
    "log": Operation(
        {200: Answer("The last lines; with `follow` as text.", ref("Lines"), or_text=True)},
        {**NOT_FOUND, **MANY_STREAMS},
        query={**_LINES, "follow": FLAG},
    ),
    "failure": _found(OBJECT),
    "get_server_events": _found(ref("Events"), **_EVENTS),
    # -- tokens
    "get_tokens": _found(shape({"api_tokens": listing(ref("Token"))})),
    "post_token": Operation(
        {201: Answer("The new token; only here with its secret.", ref("NewToken"))},
        {429: "Too many wrong passwords."},
        body=shape(
            optional={
                "note": TEXT_OR_NULL,
                "expires_in": {"type": ["integer", "null"]},
                "scopes": {"type": ["array", "null"], "items": TEXT},
                "roles": {"type": ["array", "null"], "items": TEXT},
                "auth": shape({"username": TEXT, "password": TEXT}),
            }
        ),
    ),
    "get_token": _found(ref("Token")),
    "delete_token": _GONE,
    # -- groups
    "get_groups": _list(maybe_paged(listing(ref("Group"))), **_PAGE),
    "post_groups": Operation(
        {201: Answer("The new groups.", listing(ref("Group")))},
        body=shape({"groups": listing(TEXT)}, {"users": listing(TEXT)}),
        needs_body=True,
    ),
    "get_group": _found(ref("Group")),
    "post_group": Operation(
        {201: Answer("The new group.", ref("Group"))},
        NOT_FOUND,
        body=shape(optional={"users": listing(TEXT), "name": TEXT, "properties": OBJECT}),
    ),
    "remove_group": _GONE,
    "join": Operation(
        {200: Answer("The group as it is now.", ref("Group"))},
        NOT_FOUND,
        body=_NAMES,
        needs_body=True,
    ),
    "leave": Operation(
        {200: Answer("The group as it is now.", ref("Group"))},
        NOT_FOUND,
        body=_NAMES,
        needs_body=True,
    ),
    "put_properties": Operation(
        {200: Answer("The group as it is now.", ref("Group"))},
        NOT_FOUND,
        body=OBJECT,
        needs_body=True,
    ),
    # -- services
    "get_services": _list({"type": "object", "additionalProperties": ref("Service")}),
    "get_service": _found(ref("Service")),
    "get_log": _found(ref("Lines"), **_LINES),
    "post_service": Operation(
        {201: Answer("The new service.", ref("Service"))},
        NOT_FOUND,
        body=shape(
            optional={
                "admin": FLAG,
                "url": TEXT_OR_NULL,
                "info": OBJECT,
                "display": FLAG,
                "api_token": TEXT_OR_NULL,
                "oauth_client_id": TEXT_OR_NULL,
                "oauth_redirect_uri": TEXT_OR_NULL,
                "oauth_client_allowed_scopes": listing(TEXT),
                "oauth_no_confirm": FLAG,
                "command": {"type": ["array", "null"], "maxItems": 0},
            }
        ),
        needs_body=True,
    ),
    "remove_service": Operation({200: _DONE}, {**NOT_FOUND, 405: "It is in the hub's settings."}),
    # -- shares
    "get_shares_of_owner": _found(_SHARES, **_PAGE),
    "get_shares": _found(_SHARES, **_PAGE),
    "post_share": Operation(
        {200: Answer("What is shared now.", ref("Share"))},
        NOT_FOUND,
        body=_RECIPIENT,
        needs_body=True,
    ),
    "patch_share": Operation(
        {200: Answer("What is left, if anything.", {"oneOf": [ref("Share"), shape()]})},
        NOT_FOUND,
        body=_RECIPIENT,
        needs_body=True,
    ),
    "delete_shares": _GONE,
    "get_codes_of_owner": _found(paged(listing(ref("ShareCode"))), **_PAGE),
    "get_codes": _found(paged(listing(ref("ShareCode"))), **_PAGE),
    "post_code": Operation(
        {200: Answer("The new code; only here with its secret.", ref("NewShareCode"))},
        NOT_FOUND,
        body=shape(optional={"expires_in": NUMBER, "scopes": listing(TEXT)}),
    ),
    "remove_codes": Operation(
        {204: Answer("Done.", kind=None)}, NOT_FOUND, query={"code": TEXT, "id": TEXT}
    ),
    "get_shared_with_user": _found(_SHARES, **_PAGE),
    "get_share_with_user": _found(ref("Share")),
    "leave_as_user": _GONE,
    "get_shared_with_group": _found(_SHARES, **_PAGE),
    "get_share_with_group": _found(ref("Share")),
    "leave_as_group": _GONE,
    # -- OAuth
    "exchange": Operation(
        {
            200: Answer(
                "A token.",
                shape(
                    {"access_token": TEXT, "expires_in": NUMBER, "token_type": TEXT, "scope": TEXT}
                ),
            )
        },
        {401: "The client is not known by this secret."},
        error={"anyOf": [ref("OAuthError"), ref("Error")]},
        body=shape(
            {"grant_type": TEXT, "code": TEXT, "client_id": TEXT, "client_secret": TEXT},
            {"redirect_uri": TEXT, "code_verifier": TEXT},
        ),
        needs_body=True,
        body_kind=FORM,
    ),
}
