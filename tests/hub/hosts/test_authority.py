"""The hub's own authority, and the certificates it keeps for itself."""

from pathlib import Path

import pytest

from carrel_hub.hosts.authority import Authority, AuthorityError
from carrel_hub.hosts.fleet import authority_of, renew_own
from carrel_hub.hosts.places import fleet_directory, own_files
from carrel_shared.clock import ManualClock, SystemClock


def test_it_is_made_once_and_others_must_not_have_read_it(tmp_path: Path) -> None:
    now = SystemClock().now()
    first = authority_of(tmp_path)
    directory = fleet_directory(tmp_path)
    again = Authority.open(directory, now)
    assert again.fingerprint == first.fingerprint
    assert again.agent_key("rack-1", 1) == first.agent_key("rack-1", 1)
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    (directory / "ca.key").chmod(0o640)
    with pytest.raises(AuthorityError, match="others may have read this key"):
        Authority.open(directory, now)
    (directory / "ca.key").chmod(0o600)
    (directory / "ca.key").write_text("rubbish")
    with pytest.raises(AuthorityError, match="restore it from a backup"):
        Authority.open(directory, now)


def test_keys_differ_by_host_by_direction_and_with_each_joining(tmp_path: Path) -> None:
    one = Authority.open(tmp_path, SystemClock().now())
    keys = {
        one.hub_key("a", 1),
        one.agent_key("a", 1),
        one.agent_key("a", 2),
        one.agent_key("b", 1),
        one.agent_key("a", 12),
    }
    assert len(keys) == 5


def test_the_hubs_own_certificates_are_renewed_at_half_their_life(tmp_path: Path) -> None:
    clock = ManualClock(SystemClock().now())
    assert renew_own(tmp_path, clock)
    before = own_files(tmp_path).cert.read_bytes()
    assert not renew_own(tmp_path, clock)
    clock.advance(3.4 * 86400)
    assert not renew_own(tmp_path, clock)
    clock.advance(0.2 * 86400)
    assert renew_own(tmp_path, clock)
    assert own_files(tmp_path).cert.read_bytes() != before
    assert own_files(tmp_path, "edge").cert.stat().st_mode & 0o777 == 0o600
