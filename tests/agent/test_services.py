"""Managed services: commands that listen where it was settled, or nowhere, under a real keeper."""

import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrel_agent.errors import AccountRefusedError
from carrel_agent.supervise.accounts import UnixAccounts
from carrel_agent.supervise.ports import choose_port
from carrel_agent.supervise.service_accounts import WithServices
from carrel_shared.wire.servers import ServerSpec
from support.accounts import temporary_account
from support.agent_host import AgentHost, wait_for


def test_a_service_that_listens_nowhere_is_ready_when_it_runs(host: AgentHost) -> None:
    report = host.started("silent", kind="service", listen="nowhere", cwd="/usr")
    assert report["target"] is None
    where = Path(f"/proc/{report['pid']}/cwd")
    wait_for("it to be where it is to be", lambda: where.readlink() == Path("/usr"))
    host.kill_agent()
    assert host.wait_state(report["server_id"], "ready")["pid"] == report["pid"]
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")


def test_a_service_listens_on_the_port_that_was_settled(host: AgentHost) -> None:
    port = choose_port(())
    report = host.started("port", kind="service", listen="port", port=port)
    assert report["target"] == f"http://127.0.0.1:{port}"
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")


def test_jupyterlab_itself_listens_somewhere(host: AgentHost) -> None:
    assert host.put(host.spec(listen="nowhere")).status_code == 400


def spec(account: str) -> ServerSpec:
    return ServerSpec(
        kind="service",
        server_id="0123456789ab",
        generation=1,
        user="culler",
        account=account,
        base_url="/",
        hub_prefix="/hub/",
        secret="s" * 43,
        command=["/bin/true"],
        listen="nowhere",
    )


@pytest.fixture
def another() -> Iterator[pwd.struct_passwd]:
    with temporary_account("service") as made:
        yield pwd.getpwnam(made.name)


@pytest.mark.root
async def test_services_have_accounts_of_their_own(
    account: pwd.struct_passwd, another: pwd.struct_passwd
) -> None:
    servers = UnixAccounts(min_uid=60000)
    accounts = WithServices(servers, shared=account.pw_name, connecting=None, own_uid=0)
    assert (await accounts.find(spec(another.pw_name))).uid == another.pw_uid
    for name, words in (
        ("", "say in its settings"),
        ("root", "root"),
        (account.pw_name, "account of its own"),
        ("no-such-account", "no unix account"),
    ):
        with pytest.raises(AccountRefusedError, match=words):
            await accounts.find(spec(name))
    connecting = WithServices(servers, shared=None, connecting=another.pw_gid, own_uid=0)
    with pytest.raises(AccountRefusedError, match="may connect"):
        await connecting.find(spec(another.pw_name))


async def test_without_root_a_service_runs_as_the_agent(account: pwd.struct_passwd) -> None:
    servers, uid = UnixAccounts(min_uid=1), account.pw_uid
    alone = WithServices(servers, shared=None, connecting=None, own_uid=uid)
    assert (await alone.find(spec(""))).uid == uid
    shared = WithServices(servers, shared=account.pw_name, connecting=None, own_uid=uid)
    with pytest.raises(AccountRefusedError, match="account of its own"):
        await shared.find(spec(""))
