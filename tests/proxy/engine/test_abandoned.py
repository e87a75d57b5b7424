"""Sockets whose far ends vanish, in network namespaces that are cut apart."""

import os
import shutil
from pathlib import Path

import pytest

from support.abandoned import run


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None or shutil.which("ip") is None,
    reason="cutting a network needs root, iproute2 and nftables",
)
def test_abandoned_sockets_are_found_and_leave_nothing(short_dir: Path) -> None:
    outcome = run(short_dir, sockets=12, vanished_seconds=4, watch_seconds=60)
    assert outcome.opened - outcome.before == 2 * 12
    _, left = outcome.left[-1]
    assert left <= 0
