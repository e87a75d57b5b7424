"""What a relay is set to: nothing of the hub's, and no door but two."""

from pathlib import Path
from typing import Any

import pytest
from proxy.authority import Authority
from proxy.relay.fleet import HOST, relay_settings
from proxy.running import KEY
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"hub_url": "unix:/run/hub.sock"}, "hub_url is set"),
        ({"hub_key": KEY}, "hub_key is set"),
        ({"default_target": "unix:/run/hub.sock"}, "default_target is set"),
        ({"trusted_peers": ["127.0.0.1"]}, "trusted_peers is set"),
        ({"fleet_hub": f"hub:8444#{'a' * 64}"}, "takes the place of"),
        ({"fleet_hub": "https://hub:8444"}, "pattern"),
        ({"tls_cert": "/c.pem", "tls_key": "/k.pem"}, "tls_cert is set"),
        ({"fleet_key": None}, "belong together"),
        ({"bind": "unix:/run/relay.sock"}, "host:port"),
        ({"control_listen": "127.0.0.1:8001"}, "unix:/path"),
    ],
)
def test_what_a_relay_has_no_use_for_is_refused(
    wrong: dict[str, Any], word: str, short_dir: Path
) -> None:
    pair = Authority(short_dir).host(HOST)
    assert relay_settings(short_dir, pair).is_tls
    with pytest.raises(ValidationError, match=word):
        relay_settings(short_dir, pair, **wrong)


def test_a_relay_may_be_reached_from_other_machines(short_dir: Path) -> None:
    pair = Authority(short_dir).host(HOST)
    assert relay_settings(short_dir, pair, bind="0.0.0.0:8443").bind == "0.0.0.0:8443"
