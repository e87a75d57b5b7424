"""The shapes of bodies and answers (JSON Schema 2020-12). Data only.

A key that a caller's scopes do not show is absent, so of models that are cut none is required.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "integer"}
OBJECT: Schema = {"type": "object"}
TIME: Schema = {"type": "string", "format": "date-time"}
TIME_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}


def ref(name: str) -> Schema:
    """Return a reference to a named shape."""
    return {"$ref": f"#/components/schemas/{name}"}


def listing(item: Schema) -> Schema:
    """Return the shape of a list."""
    return {"type": "array", "items": item}


def shape(required: Schema | None = None, optional: Schema | None = None) -> Schema:
    """Return the shape of an object that has these keys and no others."""
    required, optional = required or {}, optional or {}
    found: Schema = {
        "type": "object",
        "properties": {**required, **optional},
        "additionalProperties": False,
    }
    if required:
        found["required"] = list(required)
    return found


def paged(items: Schema) -> Schema:
    """Return the shape of a page that says where it stands in its list."""
    return shape({"items": items, "_pagination": ref("Pagination")})


def maybe_paged(items: Schema) -> Schema:
    """Return the shape of a list that says so only to those who ask in `Accept`."""
    return {"oneOf": [items, paged(items)]}


_SERVER = shape(
    {
        "name": TEXT,
        "display_name": TEXT,
        "full_name": TEXT,
        "last_activity": TIME_OR_NULL,
        "started": TIME_OR_NULL,
        "pending": {"enum": ["spawn", "stop", "check", None]},
        "ready": FLAG,
        "stopped": FLAG,
        "url": TEXT,
        "full_url": TEXT_OR_NULL,
        "progress_url": TEXT,
        "full_progress_url": TEXT_OR_NULL,
        "user_options": OBJECT,
    },
    {
        "state": shape(
            {
                "server_id": TEXT,
                "state": TEXT,
                "generation": NUMBER,
                "host": TEXT_OR_NULL,
                "runner": TEXT_OR_NULL,
            }
        )
    },
)

_USER_KEYS: Schema = {
    "kind": {"const": "user"},
    "name": TEXT,
    "admin": FLAG,
    "user_info": {"type": ["object", "null"]},
    "roles": listing(TEXT),
    "groups": listing(TEXT),
    "server": TEXT_OR_NULL,
    "pending": {"enum": ["spawn", "stop", "check", None]},
    "created": TIME_OR_NULL,
    "last_activity": TIME_OR_NULL,
    "servers": {"type": "object", "additionalProperties": ref("Server")},
    "auth_state": {"type": "null"},
}

_SERVICE_KEYS: Schema = {
    "kind": {"const": "service"},
    "name": TEXT,
    "admin": FLAG,
    "roles": listing(TEXT),
    "url": TEXT,
    "prefix": TEXT,
    "command": listing(TEXT),
    "pid": NUMBER,
    "info": OBJECT,
    "display": FLAG,
}

_WHO: Schema = {
    "token_id": TEXT_OR_NULL,
    "session_id": TEXT_OR_NULL,
    "scopes": listing(TEXT),
}

_TOKEN: Schema = {
    "user": TEXT,
    "id": TEXT,
    "kind": {"const": "api_token"},
    "roles": listing(TEXT),
    "scopes": listing(TEXT),
    "created": TIME,
    "last_activity": TIME_OR_NULL,
    "expires_at": TIME_OR_NULL,
    "note": TEXT,
    "session_id": TEXT_OR_NULL,
    "oauth_client": TEXT,
}

_NAMED = shape({"name": TEXT})
_SHARED_SERVER = shape(
    {"user": _NAMED, "name": TEXT, "url": TEXT, "full_url": TEXT_OR_NULL, "ready": FLAG}
)

_CODE: Schema = {
    "server": _SHARED_SERVER,
    "scopes": listing(TEXT),
    "id": TEXT,
    "created_at": TIME,
    "expires_at": TIME_OR_NULL,
    "exchange_count": NUMBER,
    "last_exchanged_at": TIME_OR_NULL,
}

HOST_KEYS: Schema = {
    "name": TEXT,
    "state": TEXT,
    "trouble": TEXT_OR_NULL,
    "another_machine": FLAG,
    "labels": OBJECT,
    "capacity": OBJECT,
    "accounts": TEXT,
    "homes": TEXT,
    "version": TEXT,
    "address": TEXT_OR_NULL,
    "joined": TIME_OR_NULL,
    "last_seen": TIME_OR_NULL,
    "clock_off_seconds": {"type": ["number", "null"]},
}

COMPONENTS: dict[str, Schema] = {
    "Error": shape({"status": NUMBER, "message": TEXT_OR_NULL}),
    "OAuthError": shape({"error": TEXT, "error_description": TEXT}),
    "Pagination": shape(
        {
            "offset": NUMBER,
            "limit": NUMBER,
            "total": NUMBER,
            "next": {
                "oneOf": [
                    {"type": "null"},
                    shape({"offset": NUMBER, "limit": NUMBER, "url": TEXT}),
                ]
            },
        }
    ),
    "Server": _SERVER,
    "User": shape(optional=_USER_KEYS),
    "Service": shape(optional=_SERVICE_KEYS),
    "Identity": {
        "oneOf": [
            shape({**_WHO, "kind": {"const": "user"}, "name": TEXT}, _USER_KEYS),
            shape({**_WHO, "kind": {"const": "service"}, "name": TEXT}, _SERVICE_KEYS),
        ]
    },
    "Group": shape(
        optional={
            "kind": {"const": "group"},
            "name": TEXT,
            "roles": listing(TEXT),
            "users": listing(TEXT),
            "properties": OBJECT,
        }
    ),
    "Token": shape(_TOKEN),
    "NewToken": shape({**_TOKEN, "token": TEXT}),
    "Share": shape(
        {
            "server": _SHARED_SERVER,
            "scopes": listing(TEXT),
            "user": {"oneOf": [{"type": "null"}, _NAMED]},
            "group": {"oneOf": [{"type": "null"}, _NAMED]},
            "kind": {"enum": ["user", "group"]},
            "created_at": TIME,
        }
    ),
    "ShareCode": shape(_CODE),
    "NewShareCode": shape(
        {**_CODE, "code": TEXT, "accept_url": TEXT, "full_accept_url": TEXT_OR_NULL}
    ),
    "Route": shape({"routespec": TEXT, "target": TEXT, "data": OBJECT}),
    "Event": shape(
        {
            "id": NUMBER,
            "at": TIME,
            "kind": TEXT,
            "actor": TEXT,
            "subject": TEXT,
            "server_id": TEXT_OR_NULL,
            "generation": {"type": ["integer", "null"]},
            "message": TEXT,
            "data": OBJECT,
            "request_id": TEXT_OR_NULL,
        }
    ),
    "Host": shape(HOST_KEYS, {"servers": NUMBER}),
    "AwaitedHost": shape({"name": TEXT, "state": TEXT, "token_expires_at": TIME}),
    "ProgressEvent": shape(
        {"message": TEXT},
        {
            "progress": {"type": "integer", "minimum": 0, "maximum": 100},
            "html_message": TEXT,
            "ready": FLAG,
            "failed": FLAG,
            "url": TEXT,
            "queue": shape(
                {"place": NUMBER, "of": NUMBER, "seconds": {"type": ["integer", "null"]}}
            ),
        },
    ),
    "Events": shape({"events": listing(ref("Event")), "next": TEXT_OR_NULL}),
    "Lines": shape({"lines": listing(TEXT)}),
}
