"""The form of `{hub}spawn`: which profile, and what of it. Pure.

Without scripts the fields of every profile are on the page and are sent, so each is called
`PROFILE.OPTION`; the style sheet hides those of profiles that are not chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carrel_hub.spawns.choice import Profiles
from carrel_hub.spawns.options import OptionSettings
from carrel_hub.spawns.profiles import PROFILE, ProfileSettings


@dataclass(frozen=True, slots=True)
class FieldView:
    """One field.

    Attributes:
        id: In the page.
        name: As it is sent.
        value: What it shows; `on` for a switch that is on.
        choices: Each value and its words.
        problem: What is wrong with what was sent, or nothing.
    """

    id: str
    name: str
    option: OptionSettings
    title: str
    value: str
    problem: str

    @property
    def choices(self) -> list[tuple[str, str]]:
        return list(self.option.choices.items())

    @property
    def described_by(self) -> str:
        """Ids of what more a screen reader is to read of it."""
        ids = [f"{self.id}-help"] if self.option.help else []
        return " ".join([*ids, f"{self.id}-problem"] if self.problem else ids)


@dataclass(frozen=True, slots=True)
class ProfileView:
    """One profile with its fields."""

    id: str
    name: str
    title: str
    description: str
    chosen: bool
    fields: list[FieldView] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FormView:
    """The form.

    Attributes:
        problem: What is wrong with the whole, or nothing.
    """

    profiles: list[ProfileView]
    problem: str

    @property
    def several(self) -> bool:
        return len(self.profiles) > 1


def form_view(
    profiles: Profiles,
    given: Mapping[str, Any],
    *,
    problem: str = "",
    problems: Mapping[str, str] | None = None,
) -> FormView | None:
    """Return the form for who may start these profiles; None where there is nothing to choose.

    Args:
        given: What was chosen last, or what was just sent and is not right.
        problems: What is wrong with it, by option.
    """
    if not profiles or (len(profiles) == 1 and not any(one.options for one in profiles.values())):
        return None
    wanted = _single(given.get(PROFILE))
    chosen = wanted if wanted in profiles else next(iter(profiles))
    shown = [
        _profile_view(
            f"p{index}",
            name,
            profile,
            given if name == chosen else {},
            (problems or {}) if name == chosen else {},
            chosen=name == chosen,
        )
        for index, (name, profile) in enumerate(profiles.items())
    ]
    titles = {key: one.title or key for key, one in profiles[chosen].options.items()}
    said = [f"{titles.get(key, key)}: {words}" for key, words in (problems or {}).items()]
    return FormView(shown, "; ".join(said) or problem)


def form_options(
    fields: Sequence[tuple[str, str]], profiles: Mapping[str, ProfileSettings]
) -> dict[str, list[str]] | None:
    """Return the options that a form was sent with, or None of a button that says none.

    `PROFILE.OPTION` counts for the profile that is chosen, and is the last of its name: a box that
    is not ticked sends nothing, so a hidden field before it says that it is off.
    """
    found: dict[str, list[str]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(value)
    chosen = _single(found.get(PROFILE))
    options: dict[str, list[str]] = {}
    for name, values in found.items():
        profile, dot, option = name.rpartition(".")
        if not dot or profile not in profiles:
            options.setdefault(name, []).extend(values)
        elif profile == chosen:
            options.setdefault(option, []).append(values[-1])
    return options or None


def _profile_view(
    id_: str,
    name: str,
    profile: ProfileSettings,
    given: Mapping[str, Any],
    problems: Mapping[str, str],
    *,
    chosen: bool,
) -> ProfileView:
    fields = [
        FieldView(
            f"{id_}-{index}",
            f"{name}.{key}",
            option,
            option.title or key,
            _shown(option, given.get(key)),
            problems.get(key, ""),
        )
        for index, (key, option) in enumerate(profile.options.items())
    ]
    return ProfileView(id_, name, profile.title or name, profile.description, chosen, fields)


def _shown(option: OptionSettings, given: Any) -> str:
    """What a field shows of a value, right or wrong."""
    value = _single(given)
    value = option.effective_default if value is None else value
    if option.kind == "switch":
        return "on" if value in (True, "on", "true", "1") else ""
    return value[:2000] if isinstance(value, str) else "" if value is None else str(value)


def _single(given: Any) -> Any:
    return given[-1] if isinstance(given, list) and given else given
