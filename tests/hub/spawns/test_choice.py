"""What may be chosen of a server, and what is made of it."""

from typing import Any

import pytest
from pydantic import ValidationError

from carrel_hub.spawns.choice import Choice, OptionsError, choose, has_choice, option_variables
from carrel_hub.spawns.profiles import ProfileSettings

SIZE = {"choices": {"s": "Small", "l": "Large"}}
HOURS = {"kind": "number", "minimum": 1, "maximum": 8, "default": 2}
TOPIC = {"kind": "text", "pattern": "[a-z]+", "max_length": 9, "variable": "TOPIC"}
GPU = {"kind": "switch"}
OPTIONS = {"size": SIZE, "hours": HOURS, "topic": TOPIC, "gpu": GPU}


def profile(**values: Any) -> ProfileSettings:
    return ProfileSettings.model_validate(values)


LAB = {"lab": profile(options=OPTIONS)}


def test_without_anything_to_choose_options_are_kept_as_given() -> None:
    for profiles in ({}, {"default": profile(command=["x"])}):
        assert not has_choice(profiles)
        assert choose({"profile": "big", "n": [3]}, profiles, set()) == Choice(
            "default", {"profile": "big", "n": [3]}
        )


def test_values_are_read_as_forms_addresses_and_json_have_them() -> None:
    sent = {"profile": ["lab"], "size": ["l"], "hours": ["3"], "topic": [" owls "], "gpu": ["on"]}
    kept = {"profile": "lab", "size": "l", "hours": 3, "topic": "owls", "gpu": True}
    assert choose(sent, LAB, set()) == Choice("lab", kept)
    assert choose(kept, LAB, set()) == Choice("lab", kept)
    empty = {"profile": "lab", "size": "", "hours": " ", "topic": "", "gpu": "off"}
    assert choose(empty, LAB, set()) == Choice("lab", {"profile": "lab", "gpu": False})


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("size", "xl", "choose one of s, l"),
        ("size", 1, "choose one of s, l"),
        ("size", ["s", "l"], "say it once"),
        ("hours", "0", "1 is the least"),
        ("hours", 9, "8 is the most"),
        ("hours", True, "write a whole number"),
        ("hours", "2.5", "write a whole number"),
        ("hours", "٣", "write a whole number"),
        ("topic", "Owls", "it must fit [a-z]+"),
        ("topic", "a" * 10, "9 characters are the most"),
        ("topic", "a\nb", "it holds a character that cannot be printed"),
        ("topic", {"a": 1}, "write text"),
        ("gpu", "perhaps", "say on or off"),
        ("LD_PRELOAD", "/tmp/x.so", "lab has no such option"),
    ],
)
def test_what_the_settings_do_not_have_is_refused(key: str, value: Any, problem: str) -> None:
    """ADV-33: what nobody allowed is not allowed."""
    with pytest.raises(OptionsError) as caught:
        choose({"profile": "lab", key: value}, LAB, set())
    assert caught.value.problems == {key: problem}
    assert key in caught.value.message


def test_a_needed_option_is_asked_for() -> None:
    profiles = {"lab": profile(options={"topic": {**TOPIC, "required": True}})}
    with pytest.raises(OptionsError, match="topic: this is needed"):
        choose({"profile": "lab", "topic": ""}, profiles, set())


def test_profiles_are_for_the_groups_they_name() -> None:
    profiles = {"default": profile(groups=["staff"]), "gpu": profile(groups=["physics", "staff"])}
    assert choose({}, profiles, {"staff"}).profile == "default"
    assert choose({}, profiles, {"physics"}).profile == "gpu", "there is but one"
    with pytest.raises(OptionsError, match="choose one of gpu"):
        choose({"profile": "default"}, profiles, {"physics"})
    for given in ({}, {"profile": "gpu"}):
        with pytest.raises(OptionsError, match="none is open to this user"):
            choose(given, profiles, {"poets"})
    with pytest.raises(OptionsError, match="none is open to this user"):
        choose({}, {"default": profile(groups=["staff"])}, set())


def test_the_server_finds_what_was_chosen_and_the_defaults() -> None:
    assert option_variables(LAB["lab"], {"size": "l", "topic": "owls", "gpu": True}) == {
        "CARREL_OPTION_SIZE": "l",
        "CARREL_OPTION_HOURS": "2",
        "TOPIC": "owls",
        "CARREL_OPTION_GPU": "1",
    }
    assert option_variables(LAB["lab"], {"size": "gone since", "hours": 99}) == {
        "CARREL_OPTION_SIZE": "s",
        "CARREL_OPTION_HOURS": "2",
        "CARREL_OPTION_GPU": "0",
    }


@pytest.mark.parametrize(
    "option",
    [
        {},
        {"kind": "text", "choices": {"a": "A"}},
        {"choices": {"a": "A"}, "default": "b"},
        {"kind": "number", "default": 9, "maximum": 8},
        {"kind": "text", "pattern": "("},
        {"kind": "text", "variable": "LD_PRELOAD"},
        {"kind": "text", "variable": "PYTHONPATH"},
        {"kind": "text", "variable": "path"},
        {"kind": "text", "variable": "JUPYTERHUB_API_TOKEN"},
        {"kind": "text", "variable": "A B"},
    ],
)
def test_settings_that_make_no_sense_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        profile(options={"x": option})


def test_options_have_names_and_variables_of_their_own() -> None:
    for options in (
        {"profile": SIZE},
        {"next": SIZE},
        {"scratch_home": SIZE},
        {"a.b": SIZE},
        {"Size": SIZE},
        {"a": TOPIC, "b": TOPIC},
    ):
        with pytest.raises(ValidationError):
            profile(options=options)
