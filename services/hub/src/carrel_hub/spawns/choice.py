"""What somebody chose of a server: a profile that is open to them, and options it has. Pure.

A profile without options keeps what it is given, as JupyterHub does; it means nothing then. One
that has some takes these alone, and `profile` names nothing but a profile where there are several.
"""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from carrel_hub.errors import InvalidRequestError
from carrel_hub.spawns.options import OptionSettings, Value, in_variable
from carrel_hub.spawns.profiles import DEFAULT, PLAIN, PROFILE, ProfileSettings

Profiles = Mapping[str, ProfileSettings]

MOST_OPTIONS = 32 * 1024
"""How long options may be as JSON. They are read and shown with every list of servers."""


class OptionsError(InvalidRequestError):
    """Something is chosen that there is not.

    Attributes:
        profile: The profile that was chosen, if there is one of that name.
        problems: What is wrong with what, by option; `profile` for the choice of that.
    """

    def __init__(self, profile: str, problems: dict[str, str]) -> None:
        words = (f"{name}: {problem}" for name, problem in problems.items())
        super().__init__("The options cannot be used. " + "; ".join(words))
        self.profile = profile
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Choice:
    """What is started.

    Attributes:
        options: What is kept of it, and shown over the REST API.
    """

    profile: str
    options: dict[str, Any]


def has_choice(profiles: Profiles) -> bool:
    """Whether the settings have anything to choose."""
    return bool(profiles.keys() - {DEFAULT}) or any(one.options for one in profiles.values())


def open_profiles(profiles: Profiles, groups: Set[str]) -> dict[str, ProfileSettings]:
    """Return what somebody in these groups may start; `default` comes first."""
    every = {DEFAULT: PLAIN, **profiles}
    ordered = {DEFAULT: every[DEFAULT], **every}
    return {name: one for name, one in ordered.items() if not one.groups or groups & {*one.groups}}


def choose(given: Mapping[str, Any], profiles: Profiles, groups: Set[str]) -> Choice:
    """Judge the options of a start.

    Args:
        given: By name; values as JSON, or lists as forms and addresses give them.
        groups: Those that the server's owner is in.

    Raises:
        InvalidRequestError: They are too long.
        OptionsError: Something else is asked for than the settings have for this owner.
    """
    if len(json.dumps(given)) > MOST_OPTIONS:
        raise InvalidRequestError(
            f"The options are too long: at most {MOST_OPTIONS} characters as JSON are kept"
        )
    if not has_choice(profiles):
        _one_of(open_profiles(profiles, groups), None)
        return Choice(DEFAULT, dict(given))
    there_are = open_profiles(profiles, groups)
    name = _one_of(there_are, given.get(PROFILE))
    chosen: dict[str, Any] = {PROFILE: name} if PROFILE in given else {}
    options = there_are[name].options
    if not options:
        return Choice(name, {**given, **chosen})
    return Choice(name, chosen | _read_options(name, given, options))


def _read_options(
    profile: str, given: Mapping[str, Any], options: Mapping[str, OptionSettings]
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    problems = {
        key[:100]: f"{profile} has no such option"
        for key in sorted(given.keys() - options.keys() - {PROFILE})
    }
    for key, option in options.items():
        try:
            value = option.read(given[key]) if key in given else None
        except ValueError as error:
            problems[key] = str(error)
            continue
        if value is not None:
            kept[key] = value
        elif option.required and option.effective_default is None:
            problems[key] = "this is needed"
    if problems:
        raise OptionsError(profile, problems)
    return kept


def option_variables(profile: ProfileSettings, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables in which a server finds what was chosen of it, or is so by default."""
    found = {}
    for name, option in profile.options.items():
        value: Value | None = None
        try:
            value = option.read(options[name]) if name in options else None
        except ValueError:  # the settings were changed since it was chosen
            value = None
        value = option.effective_default if value is None else value
        if value is not None:
            found[option.variable_of(name)] = in_variable(value)
    return found


def _one_of(there_are: Profiles, wanted: Any) -> str:
    """Return the profile that is meant."""
    if isinstance(wanted, list) and len(wanted) == 1:  # as forms and addresses give it
        [wanted] = wanted
    if wanted is None and DEFAULT in there_are:
        return DEFAULT
    if wanted is None and len(there_are) == 1:
        return next(iter(there_are))
    if isinstance(wanted, str) and wanted in there_are:
        return wanted
    words = f"choose one of {', '.join(there_are)}" if there_are else "none is open to this user"
    raise OptionsError("", {PROFILE: words})
