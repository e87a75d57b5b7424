"""What a server may use, what it uses, and how often it met a limit."""

from typing import Literal

from pydantic import Field

from carrel_shared.wire.base import Generation, Timestamp, WireReply, WireRequest

LimitKind = Literal["memory", "cpu", "processes", "open_files"]


class Limits(WireRequest):
    """The most that all processes of one server may use together. None is no limit.

    Attributes:
        memory_bytes: Of memory; swap does not count as more.
        cpu_cores: Of processor time, in cores: 1.5 is one and a half.
        processes: And threads, at one time.
        open_files: Of each process, not of all together: no kernel counts that.
        advisory: Start all the same where the host cannot enforce one of them.
    """

    memory_bytes: int | None = Field(default=None, ge=1 << 20)
    cpu_cores: float | None = Field(default=None, ge=0.01)
    processes: int | None = Field(default=None, ge=1)
    open_files: int | None = Field(default=None, ge=16)
    advisory: bool = False


class LimitsChange(WireRequest):
    """Other limits for one generation of a running server; they take the place of all it had."""

    generation: Generation
    limits: Limits


class LimitEvent(WireReply):
    """A server met one of its limits.

    Attributes:
        kind: `memory`: the kernel killed one of its processes. `processes`: one could not be made.
        count: How often so far, in this generation.
        limit: What the limit was when that was last seen: bytes, or processes.
        peak: The most that was in use until then, where the kernel keeps that.
        at: When it was last seen to have happened, within seconds.
    """

    kind: Literal["memory", "processes"]
    count: int
    limit: int | None
    peak: int | None = None
    at: Timestamp


class ServerUsage(WireReply):
    """What a server uses just now. None is what this host cannot tell.

    Attributes:
        memory_bytes: Without file pages that the kernel would give up at once.
        cpu_seconds: So far.
        limits: In force.
        unenforced: Those of them that this host does not enforce.
    """

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    cpu_seconds: float | None = None
    processes: int | None = None
    limits: Limits = Field(default_factory=Limits)
    unenforced: list[LimitKind] = Field(default_factory=list)
