"""A port that cannot be had."""

import os
import socket

import pytest

from carrel_hub.up.errors import UpError
from carrel_hub.up.port import check_port
from carrel_shared.addresses import TcpAddress


def test_a_busy_port_is_named_with_its_owner_and_another_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UpError) as refused:
            check_port(TcpAddress("127.0.0.1", port))
    said = str(refused.value)
    assert f"port {port} is in use by process {os.getpid()} (" in said
    assert "--bind 127.0.0.1:" in said
    check_port(TcpAddress("127.0.0.1", port))


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UpError, match=r"--bind 192\.0\.2\.1:8000: "):
        check_port(TcpAddress("192.0.2.1", 8000))
