"""What a server's last lines give away: rules that turn what programs say into sentences.

Each rule is a pattern, what it means for the server's owner, and a way out. The first that is found
counts; what is more certain, or further up in a chain of errors, comes first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clue:
    """What was made of something.

    Attributes:
        meaning: One sentence, for the owner.
        advice: What can be done about it.
        of_home: It is a matter of where their home lies.
        what: The file, module or command that it is about, if it names one.
    """

    meaning: str
    advice: str
    of_home: bool = False
    what: str = ""


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    meaning: str
    advice: str
    of_home: bool


def _rule(pattern: str, meaning: str, advice: str, *, of_home: bool = False) -> _Rule:
    return _Rule(re.compile(pattern), meaning, advice, of_home)


_QUOTA = "Delete what you do not need, or ask for a larger quota; then start again."

RULES = (
    _rule(
        r"Disk quota exceeded|Errno 122\b",
        "Your disk quota is used up.",
        _QUOTA,
        of_home=True,
    ),
    _rule(
        r"No space left on device|Errno 28\b|database or disk is full",
        "There is no room left on a disk it writes to.",
        "Delete what you do not need in your home; if it is not yours, tell an administrator.",
        of_home=True,
    ),
    _rule(
        r"Read-only file system|Errno 30\b",
        "A disk it writes to is read-only.",
        "Tell an administrator: the disk that holds your home may be damaged, or mounted wrongly.",
        of_home=True,
    ),
    _rule(
        r"Stale file handle|Errno 116\b|Transport endpoint is not connected",
        "The file server that holds your home was lost.",
        "Start again in a while; tell an administrator if it stays so.",
        of_home=True,
    ),
    _rule(
        r"the home directory .+ (?:does not exist|is no directory)",
        "Your account has no home there.",
        "An administrator can make it, or mount what holds it.",
        of_home=True,
    ),
    _rule(
        r"the home directory .+ did not show itself",
        "The file server that holds your home may be lost.",
        "Start again in a while; tell an administrator if it stays so.",
        of_home=True,
    ),
    _rule(
        r"cannot execute (?P<what>\S+): No such file",
        "Its program {what} does not exist on this host.",
        "An administrator can install it, or change the command in the profile.",
    ),
    _rule(
        r"cannot execute (?P<what>\S+): (?P<why>[^;]+)",
        "Its program {what} cannot be executed: {why}.",
        "An administrator can mend the command in the profile.",
    ),
    _rule(
        r"(?:ModuleNotFoundError: )?No module named '?(?P<what>[\w.]+)'?",
        "The Python module {what} is missing where the server runs.",
        "If you installed packages of your own (pip install --user), remove or mend those; else an"
        " administrator can install it.",
    ),
    _rule(
        r"ImportError: (?P<what>.{1,160})",
        "A Python module cannot be loaded: {what}.",
        "Packages of your own (pip install --user) may be of versions that do not fit: remove or"
        " update those.",
    ),
    _rule(
        r"error while loading shared libraries: (?P<what>\S+?):",
        "The system library {what} is missing on this host.",
        "An administrator can install it.",
    ),
    _rule(
        r"Exception while loading config file (?P<what>\S+)|"
        r"(?:Failed|Error) loading config file:? (?P<file>\S+)",
        "A configuration file of yours has a mistake: {what}.",
        "Mend that file, or move it away, and start again.",
    ),
    _rule(
        r"PermissionError: .*?'(?P<what>[^']+)'|Permission denied: '?(?P<path>[^' ]+)",
        "It may not use {what}.",
        "See whom that belongs to (ls -ld); in your home `sudo` may have left files of root's.",
    ),
    _rule(
        r"MemoryError|Cannot allocate memory|Errno 12\b",
        "There was not enough memory.",
        "Use less at a time, or ask for a higher limit.",
    ),
    _rule(
        r"Resource temporarily unavailable|can't start new thread|Errno 11\b",
        "It could not start another process or thread.",
        "It may have met its limit of processes: end some, or ask for a higher one.",
    ),
    _rule(
        r"Too many open files|Errno 24\b",
        "It had too many files open.",
        "Close some, or ask for a higher limit.",
    ),
    _rule(
        r"Address already in use|Errno 98\b",
        "Something else listens where it wanted to.",
        "A server of an earlier start may still run: wait a moment and start again.",
    ),
    _rule(
        r"(?:^|[:\s])(?P<what>[\w./-]+): (?:command )?not found",
        "The command {what} does not exist on this host.",
        "An administrator can install it, or change the command in the profile.",
    ),
    _rule(
        r"database is locked",
        "A database in your home is locked.",
        "Another server of yours, perhaps on another host, may have it open: stop that one.",
    ),
)


def find_clue(tail: Sequence[str]) -> Clue | None:
    """Return what the last lines give away, or None."""
    for rule in RULES:
        for line in reversed(tail):
            if (match := rule.pattern.search(line)) is not None:
                named = {name: value for name, value in match.groupdict().items() if value}
                what = next((v for n, v in named.items() if n != "why"), "a file")
                words = {"what": what.rstrip(".:"), "why": named.get("why", "").rstrip(".")}
                meaning = rule.meaning.format(**words)
                return Clue(meaning, rule.advice, rule.of_home, words["what"] if named else "")
    return None
