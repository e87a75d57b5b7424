"""What the proxy remembers of the hub's verdicts."""

import pytest

from carrel_proxy.access.verdicts import MOST_REFUSED, Key, SavedVerdict, Verdicts
from carrel_proxy.core.access import Freshness, Standing
from carrel_shared.clock import ManualClock
from carrel_shared.wire.access import Verdict, Visitor
from carrel_shared.wire.routes import Revocation

YES = Verdict(known=True, allow=True, visitor=Visitor(name="alice"))
UNKNOWN = Verdict(known=False, allow=False)
ALICE: Key = ("a" * 64, "0123456789ab")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def verdicts(clock: ManualClock) -> Verdicts:
    verdicts = Verdicts(clock, Freshness(), most=3)
    verdicts.put(ALICE, YES, 0)
    return verdicts


def test_tokens_that_are_made_up_drive_nobody_out(verdicts: Verdicts) -> None:
    version = verdicts.version
    for number in range(MOST_REFUSED + 5):
        verdicts.put((f"{number:064}", ALICE[1]), UNKNOWN, 0)
    assert verdicts.look_up(ALICE) == (YES, Standing.USE)
    assert verdicts.version == version, "what passed before is looked at again"
    assert verdicts.look_up((f"{0:064}", ALICE[1])) == (None, Standing.ASK)
    assert verdicts.look_up((f"{MOST_REFUSED:064}", ALICE[1])) == (UNKNOWN, Standing.USE)


def test_who_was_not_seen_for_longest_is_forgotten_first(verdicts: Verdicts) -> None:
    others = [(f"{number:064}", ALICE[1]) for number in range(3)]
    for key in others[:2]:
        verdicts.put(key, YES, 0)
    verdicts.look_up(ALICE)
    version = verdicts.version
    verdicts.put(others[2], YES, 0)
    assert [verdicts.look_up(key)[0] for key in (ALICE, *others)] == [YES, None, YES, YES]
    assert verdicts.version > version
    assert len(verdicts) == 3


def test_a_yes_that_became_a_no_is_told_and_saved(verdicts: Verdicts) -> None:
    told: list[Key] = []
    changes: list[None] = []
    verdicts.on_kept = told.append
    verdicts.on_change = lambda: changes.append(None)
    version = verdicts.version
    verdicts.put(ALICE, UNKNOWN, 0)
    assert (told, len(changes)) == ([ALICE], 1)
    assert verdicts.version > version
    assert verdicts.snapshot() == []
    saved = verdicts.saved(ALICE)
    assert saved is not None
    assert saved.verdict == UNKNOWN


def test_a_no_of_another_worker_ends_an_older_yes(verdicts: Verdicts, clock: ManualClock) -> None:
    no = SavedVerdict(
        token_hash=ALICE[0], server_id=ALICE[1], verdict=UNKNOWN, confirmed_at=clock.now()
    )
    clock.advance(1)
    verdicts.put(ALICE, YES, 0)
    verdicts.restore([no])
    assert verdicts.look_up(ALICE)[0] == YES
    version = verdicts.version
    clock.advance(1)
    verdicts.restore([no.model_copy(update={"confirmed_at": clock.now()})])
    assert verdicts.look_up(ALICE)[0] == UNKNOWN
    assert verdicts.version > version


def test_a_no_is_forgotten_when_access_changes(verdicts: Verdicts) -> None:
    key = ("b" * 64, ALICE[1])
    verdicts.put(key, UNKNOWN, 0)
    verdicts.revoke(Revocation(server_id="ba9876543210", ask_first=True))
    assert verdicts.look_up(key) == (None, Standing.ASK)
    assert verdicts.look_up(ALICE)[0] == YES
