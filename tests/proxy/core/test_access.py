"""Access decisions, by table."""

from datetime import UTC, datetime, timedelta

import pytest

from carrel_proxy.core.access import (
    Allowed,
    Ask,
    Credentials,
    Decision,
    Freshness,
    Refused,
    Standing,
    decide,
    identity_fields,
    split_query_token,
    standing,
)
from carrel_shared.wire.access import Verdict, Visitor

YES = Verdict(known=True, allow=True)
NO = Verdict(known=True, allow=False)
UNKNOWN = Verdict(known=False, allow=False)
VERDICTS = {"yes": YES, "no": NO, "unknown": UNKNOWN}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("shown", "decision"),
    [
        (Credentials(), Refused.NOBODY),
        (Credentials(header="yes"), Allowed("yes", "token")),
        (Credentials(header="no", cookie="yes"), Refused.NOT_ALLOWED),
        (Credentials(header="unknown", cookie="yes"), Allowed("yes", "cookie")),
        (Credentials(header="unknown"), Refused.NOBODY),
        (Credentials(header="new", cookie="yes"), Ask("new")),
        (Credentials(query="yes"), Allowed("yes", "token")),
        (Credentials(header="unknown", query="no"), Refused.NOT_ALLOWED),
        (Credentials(cookie="no"), Refused.NOBODY),
        (Credentials(cookie="unknown"), Refused.NOBODY),
        (Credentials(cookie="new"), Ask("new")),
    ],
)
def test_who_passes(shown: Credentials, decision: Decision) -> None:
    assert decide(shown, VERDICTS.get) == decision


@pytest.mark.parametrize(
    ("verdict", "age", "recheck", "worth"),
    [
        (YES, 0, False, Standing.USE),
        (YES, 60, False, Standing.USE),
        (YES, 61, False, Standing.REFRESH),
        (YES, 900, False, Standing.REFRESH),
        (YES, 901, False, Standing.ASK),
        (YES, 0, True, Standing.ASK),
        (UNKNOWN, 2, False, Standing.USE),
        (UNKNOWN, 3, False, Standing.ASK),
        (NO, 3, False, Standing.ASK),
    ],
)
def test_what_a_verdict_is_worth(
    verdict: Verdict, age: float, recheck: bool, worth: Standing
) -> None:
    assert standing(verdict, age, NOW, Freshness(), recheck=recheck) is worth


def test_nothing_outlives_its_token() -> None:
    ended = YES.model_copy(update={"expires_at": NOW})
    assert standing(ended, 0, NOW, Freshness(), recheck=False) is Standing.ASK
    before = NOW - timedelta(seconds=1)
    assert standing(ended, 0, before, Freshness(), recheck=False) is Standing.USE


@pytest.mark.parametrize("stale", [0, 10, 60])
def test_failing_closed_is_within_a_minute(stale: float) -> None:
    assert standing(YES, 61, NOW, Freshness(stale=stale), recheck=False) is Standing.ASK


@pytest.mark.parametrize(
    ("target", "token", "rest"),
    [
        (b"/a?token=t", b"t", b"/a"),
        (b"/a?x=1&token=t&y=2", b"t", b"/a?x=1&y=2"),
        (b"/a?token=t&token=u", None, b"/a?token=t&token=u"),
        (b"/a?xtoken=t", None, b"/a?xtoken=t"),
        (b"/a?token=", None, b"/a?token="),
        (b"/token=t", None, b"/token=t"),
    ],
)
def test_a_token_is_taken_out_of_a_query(target: bytes, token: bytes | None, rest: bytes) -> None:
    assert split_query_token(target) == (token, rest)


def test_a_name_cannot_break_out_of_its_field() -> None:
    fields = identity_fields(Visitor(name="a\r\nX: y", display_name="ü\u2028"), "token")
    assert fields.count(b"\r\n") == 2
    assert fields.isascii()
