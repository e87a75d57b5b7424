"""Types of settings that more than one service has, each checked as it is read."""

from typing import Annotated, Literal

from pydantic import AfterValidator, SecretStr, StringConstraints

from carrel_shared.addresses import parse_address, parse_addresses
from carrel_shared.service_auth import check_key


def _check_address(value: str) -> str:
    parse_address(value)  # its error is a ValueError, which pydantic reports
    return value


def _check_addresses(value: str) -> str:
    parse_addresses(value)
    return value


def _check_key(value: SecretStr) -> SecretStr:
    check_key("this key", value.get_secret_value())
    return value


AddressText = Annotated[str, AfterValidator(_check_address)]
"""unix:/path, host:port or http://host:port."""

AddressesText = Annotated[str, AfterValidator(_check_addresses)]
"""One such address, or several with commas between them."""

ServiceKey = Annotated[SecretStr, AfterValidator(_check_key)]
"""A key that two services share; an empty or short one is refused."""

PeerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""The name of a proxy or an agent."""

BasePath = Annotated[str, StringConstraints(pattern=r"^/([A-Za-z0-9._~-]+/)*$")]
"""A path with a slash at both ends."""

LogLevel = Literal["debug", "info", "warning", "error"]
"""What is logged, and everything above it."""
