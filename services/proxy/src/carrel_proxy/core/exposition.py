"""The text format of Prometheus 0.0.4, written from numbers. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram", "summary"]

_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: what is added to the family's name, labels, and a number."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """All lines of one name."""

    name: str
    kind: Kind
    words: str
    samples: Sequence[Sample]


def counter(name: str, words: str, value: float) -> Family:
    """Return a number that only grows."""
    return Family(name, "counter", words, [Sample(value)])


def gauge(name: str, words: str, value: float) -> Family:
    """Return a number that goes up and down."""
    return Family(name, "gauge", words, [Sample(value)])


def counters(name: str, words: str, label: str, values: Mapping[str, float]) -> Family:
    """Return a growing number for each value of one label, which must be one of few."""
    return Family(
        name, "counter", words, [Sample(value, {label: key}) for key, value in values.items()]
    )


def histogram(
    name: str, words: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> Family:
    """Return a histogram.

    Args:
        bounds: Upper bounds, ascending.
        counts: How many fell between one bound and the next; one more for those above all.
    """
    limits = [_number(bound) for bound in bounds] + ["+Inf"]
    samples = [
        Sample(number, {"le": limit}, "_bucket")
        for limit, number in zip(limits, accumulate(counts), strict=True)
    ]
    samples += [Sample(total, suffix="_sum"), Sample(sum(counts), suffix="_count")]
    return Family(name, "histogram", words, samples)


def render(families: Iterable[Family]) -> str:
    """Return the page."""
    lines = []
    for family in families:
        words = family.words.translate(_ESCAPED)
        lines += [f"# HELP {family.name} {words}", f"# TYPE {family.name} {family.kind}"]
        for sample in family.samples:
            labels = ",".join(
                f'{key}="{value.translate(_ESCAPED)}"' for key, value in sample.labels.items()
            )
            shown = f"{{{labels}}}" if labels else ""
            lines.append(f"{family.name}{sample.suffix}{shown} {_number(sample.value)}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
