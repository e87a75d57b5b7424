"""The form of the page of tokens: what there is to choose, and what was sent. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from carrel_hub.auth.subjects import Subject
from carrel_hub.errors import InvalidRequestError
from carrel_hub.rbac import Resource, RoleBook, Scope, may
from carrel_hub.rbac.custom import CustomScope
from carrel_hub.rbac.words import WORDS, in_words, in_words_of_ones_own
from carrel_hub.tokens.bodies import WantedToken, wanted_token

LIFETIMES = {
    "3600": "an hour",
    "86400": "a day",
    "604800": "a week",
    "2592000": "30 days",
    "31536000": "a year",
}
"""How long a new token may be good, in seconds; beside these for ever."""

SOME = "some"
_NO_CHOICE = (Scope.INHERIT, Scope.SELF)


@dataclass(frozen=True, slots=True)
class Offer:
    """A scope that somebody has and may give to a token."""

    scope: str
    words: str


@dataclass(frozen=True, slots=True)
class TokenForm:
    """What the form shows.

    Attributes:
        limited: The token is to have some scopes only.
        ticked: Those of the offered ones.
        others: Further ones, as typed.
        problem: What is wrong with it, or nothing.
    """

    note: str = ""
    lifetime: str = ""
    limited: bool = False
    ticked: frozenset[str] = field(default_factory=frozenset)
    others: str = ""
    problem: str = ""


def offered_scopes(subject: Subject, custom: Mapping[str, CustomScope]) -> list[Offer]:
    """Return what somebody may give to a token, over everything or over what is their own."""
    me, found = Resource(subject.name), []
    for name in [*(str(one) for one in WORDS if one not in _NO_CHOICE), *custom]:
        if name in subject.scopes:
            found.append(Offer(name, in_words(name, custom)))
        elif name in WORDS and may(subject, Scope(name), me):
            found.append(Offer(f"{name}!user", in_words_of_ones_own(name, custom)))
    return found


def sent_form(fields: Sequence[tuple[str, str]]) -> TokenForm:
    """Return the form as it was sent."""
    first: dict[str, str] = {}
    for name, value in fields:
        first.setdefault(name, value)
    return TokenForm(
        note=first.get("note", "").strip(),
        lifetime=first.get("lifetime", ""),
        limited=first.get("what") == SOME,
        ticked=frozenset(value for name, value in fields if name == "scope"),
        others=first.get("scopes", "").strip(),
    )


def lifetimes_of(longest: int) -> dict[str, str]:
    """Return the choices there are, the last one for as long as may be.

    Args:
        longest: In seconds; 0 for no limit.
    """
    found = {text: words for text, words in LIFETIMES.items() if not longest or int(text) < longest}
    return {**found, "": f"{_in_words(longest)}, the longest there is" if longest else "ever"}


def _in_words(seconds: int) -> str:
    for length, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds % length == 0 and seconds > length:
            return f"{seconds // length} {unit}"
    return LIFETIMES.get(str(seconds), f"{seconds} seconds")


def read_form(form: TokenForm, book: RoleBook, longest: int = 0) -> WantedToken:
    """Return what token a form asks for.

    Args:
        longest: How many seconds it may be good; 0 for no limit.

    Raises:
        InvalidRequestError: It makes no sense; the message is for people.
    """
    if form.lifetime and form.lifetime not in LIFETIMES:
        raise InvalidRequestError("There is no such choice of how long a token is good.")
    body: dict[str, object] = {"note": form.note or "Made on the page of tokens"}
    if form.lifetime:
        body["expires_in"] = int(form.lifetime)
    scopes = sorted(form.ticked) + form.others.replace(",", " ").split()
    if form.limited and not scopes:
        raise InvalidRequestError("Say what the token may do, or let it do everything you may.")
    if scopes and not form.limited:
        raise InvalidRequestError(
            "You named scopes, and chose that the token may do everything. Choose one of the two."
        )
    if form.limited:
        body["scopes"] = list(dict.fromkeys(scopes))
    return wanted_token(body, book, longest)
