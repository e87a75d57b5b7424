"""What the services say to each other changes on purpose, or not at all."""

import importlib
import json
import os
import pkgutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct
from pydantic import BaseModel, ValidationError

import carrel_shared.wire
from carrel_shared.clock import ManualClock
from carrel_shared.wire import WIRE_VERSION
from carrel_shared.wire.base import WireReply, WireRequest
from carrel_shared.wire.routes import RouteMessage

SNAPSHOT = Path(__file__).with_name("wire.json")


def models() -> dict[str, type[Any]]:
    """Return what crosses the wire: models, and structs where there are very many of them."""
    found = {}
    for module in pkgutil.iter_modules(carrel_shared.wire.__path__):
        loaded = importlib.import_module(f"carrel_shared.wire.{module.name}")
        for name, value in vars(loaded).items():
            if (
                isinstance(value, type)
                and issubclass(value, BaseModel | Struct)
                and value.__module__ == loaded.__name__
                and value not in (WireRequest, WireReply, RouteMessage)
            ):
                found[f"{module.name}.{name}"] = value
    return dict(sorted(found.items()))


def schema(model: type[Any]) -> dict[str, object]:
    """Return what crosses the wire of a model: names, types, defaults; no prose."""

    def bare(value: object) -> object:
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if k not in ("description", "title")}
            return {k: sorted(v) if k == "required" else bare(v) for k, v in kept.items()}
        return [bare(v) for v in value] if isinstance(value, list) else value

    whole = msgspec.json.schema(model) if issubclass(model, Struct) else model.model_json_schema()
    result = bare(whole)
    assert isinstance(result, dict)
    return result


def test_the_wire_is_what_it_was() -> None:
    """A peer of the version before must understand this one, or `WIRE_VERSION` must grow.

    After a change that is meant, run the tests once with CARREL_WRITE_SNAPSHOT=1.
    """
    now = {"version": WIRE_VERSION, "models": {n: schema(m) for n, m in models().items()}}
    if os.environ.get("CARREL_WRITE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert now == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", models())
def test_a_request_forbids_what_a_reply_ignores(name: str) -> None:
    model = models()[name]
    if issubclass(model, Struct):
        config = model.__struct_config__
        frozen, forbids = config.frozen, config.forbid_unknown_fields
    else:
        frozen = model.model_config.get("frozen")
        forbids = model.model_config.get("extra") == "forbid"
    assert frozen, "what was said cannot be changed afterwards"
    assert forbids is not issubclass(model, WireReply)


def test_an_unknown_field_in_a_request_is_named() -> None:
    from carrel_shared.wire.servers import StopRequest

    with pytest.raises(ValidationError, match="force"):
        StopRequest.model_validate({"generation": 1, "reason": "x", "force": True})


@pytest.mark.parametrize("server_id", ["", "abc", "ABCDEF012345", "../../etc/x", "0123456789ab\n"])
def test_an_id_is_twelve_hex_digits_and_nothing_else(server_id: str) -> None:
    """Paths, cookies and process groups are named by it."""
    from carrel_shared.wire.access import VerdictRequest

    with pytest.raises(ValidationError):
        VerdictRequest(token_hash="0" * 64, server_id=server_id)


def test_secrets_do_not_show_when_a_model_is_printed() -> None:
    from carrel_shared.wire.access import RedeemedToken, Verdict
    from carrel_shared.wire.routes import Access

    access = Access(server_id="0123456789ab", client_id="c", secret="canary")
    verdict = Verdict(known=True, allow=True)
    token = RedeemedToken(token="canary", expires_at=ManualClock().now(), verdict=verdict)
    assert "canary" not in repr(access) + str(access) + repr(token)


@pytest.mark.parametrize(
    "target",
    ["unix:relative", "ftp://h:1", "http://h:0", "http://169.254.169.254:80", "unix:/" * 40],
)
def test_a_report_names_no_target_that_proxies_refuse(target: str) -> None:
    """A table with one is refused whole, so an agent could keep every route from the proxies."""
    from carrel_shared.wire.servers import ServerReport

    report = {"server_id": "0123456789ab", "generation": 1, "state": "ready", "runner": "exec"}
    assert ServerReport.model_validate(report | {"target": "unix:/run/s", "peer_uid": 0})
    with pytest.raises(ValidationError, match="target"):
        ServerReport.model_validate(report | {"target": target})
    with pytest.raises(ValidationError, match="peer_uid"):
        ServerReport.model_validate(report | {"peer_uid": -1})
