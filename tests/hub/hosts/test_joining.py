"""How machines become hosts, and each way in which that goes wrong, loudly."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hub.hosts.conftest import NewMachine, Token, signing_request
from hub.world import World
from sqlmodel import col, select

from carrel_agent.fleet.credentials import store
from carrel_agent.fleet.renewal import Renewal
from carrel_hub.db.models import AgentHost, Event, JoinToken
from carrel_hub.errors import ConflictError
from carrel_hub.hosts.keeping import accept_machine
from carrel_hub.hosts.standing import Standing, standing_of
from carrel_shared.fleet import FleetFiles, RenewedContext, host_identity, host_name
from carrel_shared.fleet_keys import new_key_pair, past_half_life

SILENCE = timedelta(seconds=35)


async def host(world: World, name: str) -> AgentHost:
    async with world.hub.database.read() as session:
        return await session.get_one(AgentHost, name)


async def kinds(world: World, name: str) -> list[str]:
    async with world.hub.database.read() as session:
        statement = select(Event.kind).where(Event.subject == f"agent:{name}")
        return list((await session.exec(statement.order_by(col(Event.id)))).all())


async def test_a_token_is_exchanged_for_credentials_that_say_which_host_it_is(
    world: World, machine: NewMachine, token: Token
) -> None:
    one, text = machine(), await token("rack-1")
    reply = await one.join(text)
    assert reply.status_code == 200
    given = reply.json()
    authority = world.hub.fleet.authority
    assert text.endswith(f".{authority.fingerprint}")
    assert given["authority"] == authority.certificate
    certificate = x509.load_pem_x509_certificate(given["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == [host_identity("rack-1")]
    assert names.get_values_for_type(x509.DNSName) == [host_name("rack-1")]
    certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate(given["authority"].encode())
    )
    assert len({given["hub_key"], given["agent_key"]}) == 2
    now = world.clock.now()
    assert standing_of(await host(world, "rack-1"), now=now, silence=SILENCE) is Standing.JOINING
    assert (await one.report()).status_code == 200
    row = await host(world, "rack-1")
    assert standing_of(row, now=now, silence=SILENCE) is Standing.READY
    assert row.capacity["memory_available"] == 6 << 30
    world.clock.advance(36)
    now = world.clock.now()
    assert standing_of(row, now=now, silence=SILENCE) is Standing.UNREACHABLE
    assert await kinds(world, "rack-1") == ["host.token_created", "host.joined", "host.ready"]


async def test_a_token_is_good_once_for_a_while_and_kept_as_a_hash(
    world: World, machine: NewMachine, token: Token
) -> None:
    text = await token("rack-1")
    async with world.hub.database.read() as session:
        [row] = (await session.exec(select(JoinToken))).all()
    assert row.token_hash not in text
    assert (await machine().join("x" * 43)).status_code == 403
    assert (await machine().join(text)).status_code == 200
    again = await machine().join(text)
    assert again.status_code == 403
    assert "was used, has expired" in again.json()["message"]
    late = await token("rack-2")
    world.clock.advance(3601)
    assert (await machine().join(late)).status_code == 403
    old, _new = await token("rack-3"), await token("rack-3")
    assert (await machine().join(old)).status_code == 403, "a newer one makes it void"


async def test_one_hosts_credentials_open_nothing_of_anothers(
    machine: NewMachine, token: Token
) -> None:
    one, two = machine(), machine(boot_id="boot-2")
    await one.join(await token("rack-1"))
    await two.join(await token("rack-2"))
    assert (await one.report()).status_code == 200
    assert (await one.report(as_host="rack-2")).status_code == 403, "renamed by hand"
    path = "/internal/v1/agents/rack-1/report"
    assert (await one.call("POST", path, {}, shows=host_identity("rack-2"))).status_code == 401
    assert (await one.call("POST", path, {}, shows="")).status_code == 401, "a key alone"
    assert (
        await machine().call("POST", path, {}, shows=host_identity("rack-1"))
    ).status_code == 401
    assert (await one.call("POST", "/internal/v1/access/verdict", {})).status_code == 404


async def test_joining_again_makes_earlier_credentials_void(
    world: World, machine: NewMachine, token: Token
) -> None:
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    old = machine(credentials=one.credentials, sequence=one.sequence)
    assert (await one.join(await token("rack-1"))).status_code == 200
    assert (await one.report()).status_code == 200
    refused = await old.report()
    assert refused.status_code == 401
    assert "join anew" in refused.json()["message"]
    assert "had before" in (await host(world, "rack-1")).trouble
    await old.report()
    found = await kinds(world, "rack-1")
    assert found.count("host.refused") == 1, "told once, not at each try"
    assert "host.joined_again" in found


async def test_a_name_in_use_and_a_machine_that_is_a_host_already_are_refused(
    machine: NewMachine, token: Token
) -> None:
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    other = await machine(boot_id="boot-2").join(await token("rack-1"))
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert "is another machine, at 192.0.2.7, and runs" in other.json()["message"]
    twice = await machine().join(await token("rack-2"))
    assert twice.status_code == 409
    assert "this machine is the hub's host rack-1 already" in twice.json()["message"]


async def test_copied_credentials_are_refused_as_long_as_the_original_runs(
    world: World, machine: NewMachine, token: Token
) -> None:
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    clone = machine(credentials=one.credentials, boot_id="boot-2", instance="two")
    refused = await clone.report()
    assert (refused.status_code, refused.json()["code"]) == (409, "two_agents")
    assert "these credentials were copied" in refused.json()["message"]
    assert "copied" in (await host(world, "rack-1")).trouble
    assert (await one.report()).status_code == 200, "the original goes on"
    await clone.report()
    assert (await kinds(world, "rack-1")).count("host.refused") == 1
    world.clock.advance(61)
    await one.report()
    assert (await host(world, "rack-1")).trouble == ""


async def test_a_clone_on_one_kernel_takes_nobodys_place(
    world: World, machine: NewMachine, token: Token
) -> None:
    """A container's copy, say: the same boot, and a state directory of its own."""
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    clone = machine(credentials=one.credentials, instance="two", place="1:2")
    for _ in range(2):
        refused = await clone.report()
        assert (refused.status_code, refused.json()["code"]) == (409, "two_agents")
        assert "from another directory, on the same kernel" in refused.json()["message"]
        assert (await one.report()).status_code == 200, "the original goes on"
    restarted = machine(credentials=one.credentials, instance="three")
    assert (await restarted.report()).status_code == 200
    world.clock.advance(36)
    assert (await clone.report()).status_code == 200, "its state was moved while it was silent"
    assert "host.moved" in await kinds(world, "rack-1")


async def test_a_copy_on_another_machine_waits_until_somebody_accepts_it(
    world: World, machine: NewMachine, token: Token
) -> None:
    """Also if the original is silent: that is when a copy would go unnoticed."""
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    world.clock.advance(3600)
    copy = machine(credentials=one.credentials, boot_id="boot-2", instance="two", id="machine-2")
    for _ in range(2):
        refused = await copy.report()
        assert (refused.status_code, refused.json()["code"]) == (409, "another_machine")
        assert "`carrel-hub host accept rack-1`" in refused.json()["message"]
    assert (await kinds(world, "rack-1")).count("host.refused") == 1
    assert "not the one that host rack-1 joined from" in (await host(world, "rack-1")).trouble
    async with world.hub.database.write() as session:
        row = await session.get_one(AgentHost, "rack-1")
        await accept_machine(session, world.hub, row, actor="console")
    assert (await copy.report()).status_code == 200
    assert (await host(world, "rack-1")).trouble == ""
    world.clock.advance(3600)
    restarted = machine(credentials=one.credentials, boot_id="boot-3", instance="three")
    assert (await restarted.report()).status_code == 409, "the original is the stranger now"


async def test_a_host_that_is_back_ends_what_a_copy_of_it_asked_for(
    world: World, machine: NewMachine, token: Token
) -> None:
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    world.clock.advance(3600)
    copy = machine(credentials=one.credentials, boot_id="boot-2", instance="two", id="machine-2")
    assert (await copy.report()).status_code == 409
    rebooted = machine(credentials=one.credentials, boot_id="boot-3", instance="three")
    assert (await rebooted.report()).status_code == 200
    async with world.hub.database.write() as session:
        row = await session.get_one(AgentHost, "rack-1")
        with pytest.raises(ConflictError, match="no other machine was refused"):
            await accept_machine(session, world.hub, row, actor="console")


async def test_a_new_machine_joins_under_an_old_name_with_a_token(
    world: World, machine: NewMachine, token: Token
) -> None:
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    world.clock.advance(3600)
    other = machine(boot_id="boot-2", id="machine-2")
    assert (await other.join(await token("rack-1"))).status_code == 200
    assert (await other.report()).status_code == 200


async def test_a_machine_that_cannot_be_told_from_others_is_known_by_its_boot(
    world: World, machine: NewMachine, token: Token
) -> None:
    one = machine(id="")
    await one.join(await token("rack-1"))
    await one.report()
    world.clock.advance(3600)
    rebooted = machine(credentials=one.credentials, boot_id="boot-2", instance="two", id="")
    assert (await rebooted.report()).status_code == 200


async def test_of_two_agents_in_one_place_the_one_that_began_last_counts(
    machine: NewMachine, token: Token
) -> None:
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    later = machine(credentials=one.credentials, instance="two")
    assert (await later.report()).status_code == 200, "as after a restart of the agent"
    refused = await one.report()
    assert refused.status_code == 409
    assert "two agents must not share one name and key" in refused.json()["message"]


async def test_a_rebooted_host_is_taken_in_once_its_former_self_is_silent(
    world: World, machine: NewMachine, token: Token
) -> None:
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    rebooted = machine(credentials=one.credentials, boot_id="boot-9", instance="two")
    assert (await rebooted.report()).status_code == 409
    world.clock.advance(36)
    assert (await rebooted.report()).status_code == 200


async def test_a_clock_that_is_off_keeps_a_host_out_and_servers_from_it(
    world: World, machine: NewMachine, token: Token
) -> None:
    one, text = machine(), await token("rack-1")
    late = (world.clock.now() - timedelta(seconds=90)).isoformat()
    refused = await one.join(text, at=late)
    assert refused.status_code == 409
    assert "90 seconds behind the hub's" in refused.json()["message"]
    assert (await one.join(text)).status_code == 200, "the token was not used up"
    reply = await one.report(at=late)
    assert reply.json()["trouble"] == "its clock is 90 seconds behind the hub's"
    await one.report(at=late)
    row = await world.drive(await world.start())
    assert row.host is None
    assert "takes no servers: its clock is 90 seconds behind" in row.progress_message
    assert (await kinds(world, "rack-1")).count("host.clock_off") == 1
    await one.report()
    assert (await host(world, "rack-1")).trouble == ""


async def test_certificates_are_renewed_and_a_host_leaves(
    world: World, machine: NewMachine, token: Token
) -> None:
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    path = "/internal/v1/agents/rack-1"
    renewed = await one.call("POST", f"{path}/certificate", {"request": signing_request()})
    assert renewed.status_code == 200
    assert renewed.json()["certificate"] != one.credentials["certificate"]
    bad = await one.call("POST", f"{path}/certificate", {"request": "nonsense"})
    assert bad.status_code == 400
    assert (await one.call("POST", f"{path}/leave")).status_code == 204
    gone = await one.report()
    assert gone.status_code == 401
    assert "the host was removed" in gone.json()["message"]
    row = await host(world, "rack-1")
    now = world.clock.now()
    assert standing_of(row, now=now, silence=SILENCE) is Standing.GONE


async def test_an_agent_renews_what_it_has_with_the_hub(
    world: World, machine: NewMachine, token: Token, tmp_path: Path
) -> None:
    one, pair = machine(), tmp_path / "host.pem"
    key = new_key_pair()
    await one.join(await token("rack-1"), request=key.request)
    files = FleetFiles(tmp_path / "ca.pem", pair, pair)
    given = one.credentials
    store(files, key, given["certificate"], given["authority"], None)
    before = pair.read_bytes()
    world.clock.advance(timedelta(days=4).total_seconds())
    assert past_half_life(pair, world.clock.now())
    async with one.client() as client:
        await Renewal(
            files,
            name="rack-1",
            hub=client,
            key=given["agent_key"],
            listening=RenewedContext(files),
            group=None,
            clock=world.clock,
        ).renew()
    private = b"-----BEGIN PRIVATE KEY"
    assert before.split(private)[1] not in pair.read_bytes(), "a new key"
    assert not past_half_life(pair, world.clock.now())
    files.server_context()
    assert (await one.report()).status_code == 200


async def test_whoever_joins_can_check_the_hub_first(world: World, machine: NewMachine) -> None:
    shown = await machine().call("GET", "/internal/v1/fleet/authority")
    assert shown.text == world.hub.fleet.authority.certificate


async def test_strangers_send_little(machine: NewMachine) -> None:
    large = {"token": "x" * (1 << 20)}
    assert (await machine().call("POST", "/internal/v1/fleet/join", large)).status_code == 413


@pytest.mark.parametrize("address", ["", "a b", "169.254.1.1", "0.0.0.0", "x/y", "::"])
async def test_an_address_nobody_should_call_is_refused(
    machine: NewMachine, token: Token, address: str
) -> None:
    assert (await machine().join(await token("rack-1"), address=address)).status_code == 400
