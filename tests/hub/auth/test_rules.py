"""Who is let in: nobody until a rule says so, and a refusal beats any permission."""

from itertools import product

import pytest

from carrel_hub.auth.rules import Known, admit, anybody_allowed, people_named
from carrel_hub.auth.settings import AuthSettings


def test_nobody_is_let_in_by_default() -> None:
    assert not admit(AuthSettings(), "alice", Known()).admitted


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        (AuthSettings(allowed_users=["alice"]), Known()),
        (AuthSettings(allowed_users=[" Alice "]), Known()),
        (AuthSettings(admin_users=["alice"]), Known()),
        (AuthSettings(allow_all=True), Known()),
        (AuthSettings(), Known(console=True)),
    ],
)
def test_one_rule_is_enough(settings: AuthSettings, known: Known) -> None:
    assert admit(settings, "alice", known).admitted
    assert not admit(AuthSettings(allowed_users=["bob"]), "alice", Known()).admitted


def test_no_permission_lets_in_whom_a_rule_refuses() -> None:
    for allowed, admins, everybody, console in product((False, True), repeat=4):
        settings = AuthSettings(
            allowed_users=["alice", "root"] if allowed else [],
            admin_users=["alice", "root"] if admins else [],
            allow_all=everybody,
        )
        assert not admit(settings, "alice", Known(disabled=True, console=console)).admitted
        assert not admit(settings, "alice", Known(hub_only=True, console=console)).admitted
        assert not admit(settings, "root", Known(console=console)).admitted


def test_only_the_settings_make_administrators() -> None:
    assert admit(AuthSettings(admin_users=["alice"]), "alice", Known()).admin
    assert not admit(AuthSettings(allow_all=True), "alice", Known(console=True)).admin


def test_whether_anybody_could_sign_in() -> None:
    socket = "unix:/run/pam.sock"
    assert not anybody_allowed(AuthSettings(pam_socket=socket), console_users=False)
    assert anybody_allowed(AuthSettings(pam_socket=socket), console_users=True)
    assert anybody_allowed(AuthSettings(pam_socket=socket, allow_all=True), console_users=False)
    assert not anybody_allowed(AuthSettings(allow_all=True), console_users=True)


def test_names_in_the_settings_are_told_once() -> None:
    settings = AuthSettings(allowed_users=["Bob", "alice", "a/b"], admin_users=["bob"])
    assert people_named(settings) == ["alice", "bob"]
