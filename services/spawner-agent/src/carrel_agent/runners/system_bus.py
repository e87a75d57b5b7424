"""Talking to systemd over D-Bus (org.freedesktop.systemd1): the few calls that a runner needs.

The library is synchronous here, so each call is made in a thread, on a connection of its own: calls
are rare, and a manager that is restarted meanwhile costs one error.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from carrel_agent.errors import SetupError

CALL_SECONDS = 25.0
T = TypeVar("T")
Property = tuple[str, tuple[str, Any]]
"""A unit's property as StartTransientUnit takes it: name, (signature, value)."""


class SystemdError(Exception):
    """systemd did not do it.

    Attributes:
        name: The D-Bus error, as `org.freedesktop.systemd1.NoSuchUnit`; empty without an answer.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class SystemdManager:
    """The system's service manager.

    Raises:
        SetupError: The library for D-Bus is not installed.
    """

    def __init__(self, bus: str = "SYSTEM") -> None:
        try:
            import jeepney.io.blocking  # noqa: F401 - is it there?
        except ImportError as error:
            raise SetupError(
                "the systemd runner needs the package jeepney: pip install 'carrel-agent[systemd]'"
            ) from error
        self._bus = bus

    async def start(
        self,
        unit: str,
        properties: Sequence[Property],
        others: Sequence[tuple[str, Sequence[Property]]] = (),
    ) -> None:
        """Start a transient service; descriptors among the properties go with it.

        Args:
            unit: The service.
            properties: Its properties.
            others: Units that it needs, made with it.

        Raises:
            SystemdError: It is not started.
        """
        signature = "ssa(sv)a(sa(sv))"
        await self._manager("StartTransientUnit", signature, unit, "fail", properties, others)

    async def set_properties(self, unit: str, properties: Sequence[Property]) -> None:
        """Change a running service, until it ends."""
        await self._manager("SetUnitProperties", "sba(sv)", unit, True, properties)

    async def stop(self, unit: str) -> None:
        """Stop a service, and forget that it failed. One that is not there is stopped."""
        for method, signature, more in (
            ("StopUnit", "ss", ("replace",)),
            ("ResetFailedUnit", "s", ()),
        ):
            try:
                await self._manager(method, signature, unit, *more)
            except SystemdError as error:
                if not error.name.endswith(".NoSuchUnit"):
                    raise

    async def service(self, unit: str) -> dict[str, Any] | None:
        """Return the properties of a service, or None if there is none."""
        try:
            [path] = await self._manager("GetUnit", "s", unit)
            [found] = await self._call(
                path, "org.freedesktop.DBus.Properties", "GetAll", "s",
                "org.freedesktop.systemd1.Service",
            )  # fmt: skip
        except SystemdError as error:
            if error.name.endswith((".NoSuchUnit", ".UnknownObject")):
                return None
            raise
        return {name: value for name, (_, value) in found.items()}

    async def _manager(self, method: str, signature: str, *body: Any) -> Any:
        return await self._call(
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            method,
            signature,
            *body,
        )

    async def _call(
        self, path: str, interface: str, method: str, signature: str, *body: Any
    ) -> Any:
        from jeepney import DBusAddress, DBusErrorResponse, new_method_call
        from jeepney.io.blocking import open_dbus_connection
        from jeepney.wrappers import unwrap_msg

        address = DBusAddress(path, "org.freedesktop.systemd1", interface)
        message = new_method_call(address, method, signature, body)

        def call() -> Any:
            with open_dbus_connection(self._bus, enable_fds=True) as connection:
                return unwrap_msg(connection.send_and_get_reply(message, timeout=CALL_SECONDS))

        try:
            return await in_thread(call)
        except DBusErrorResponse as error:
            text = error.data[0] if error.data else error.name
            raise SystemdError(error.name, str(text)) from error
        except (OSError, TimeoutError, EOFError, ConnectionError) as error:
            raise SystemdError("", f"systemd does not answer on the {self._bus} bus") from error


async def in_thread(work: Callable[[], T]) -> T:
    """Do something that blocks."""
    return await asyncio.to_thread(work)
