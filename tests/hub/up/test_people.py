"""Who is at the console."""

import pytest

from carrel_hub.up.errors import UpError
from carrel_hub.up.people import Person, choose_person

UIDS = {"root": 0, "toor": 0, "daemon": 1, "alice": 1000, "bob": 1001, "nobody": 65534}


def choose(
    uid: int, *, user: str | None = None, sudo: str | None = None, demo: bool = False
) -> Person:
    name = next(name for name in UIDS if UIDS[name] == uid)
    return choose_person(
        uid=uid, own_name=name, requested=user, sudo_user=sudo, demo=demo, uid_of=UIDS.get
    )


def test_an_ordinary_user_is_the_person_whatever_the_environment_says() -> None:
    assert choose(1000, sudo="bob", demo=True) == Person("alice", "alice")
    assert choose(1000, user="alice") == Person("alice", "alice")
    with pytest.raises(UpError, match="start it as root"):
        choose(1000, user="bob")


def test_root_names_somebody_or_is_known_by_sudo() -> None:
    assert choose(0, user="bob", sudo="alice", demo=True) == Person("bob", "bob")
    assert choose(0, sudo="alice", demo=True) == Person("alice", "alice")


@pytest.mark.parametrize("user", ["root", "toor", "daemon", "nobody"])
def test_nobody_below_a_persons_uid_gets_notebooks(user: str) -> None:
    with pytest.raises(UpError, match="never as root"):
        choose(0, user=user)
    assert choose(0, sudo=user) == Person("admin", None)


def test_an_unknown_user_is_named() -> None:
    with pytest.raises(UpError, match="--user carol: there is no such unix account"):
        choose(0, user="carol")
    assert choose(0, sudo="carol") == Person("admin", None)


def test_root_alone_is_an_administrator_without_notebooks_or_the_demo_account() -> None:
    assert choose(0) == Person("admin", None)
    assert choose(0, demo=True) == Person("carrel-demo", "carrel-demo", make_demo=True)
