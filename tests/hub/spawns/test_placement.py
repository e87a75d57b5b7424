"""Which host gets a server: what fits, what was missing, and that no host is ever overfilled."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_hub.spawns.placement import Needs, Offer, lacking, place

GIB = 1 << 30


def offer(name: str, **changes: Any) -> Offer:
    values: dict[str, Any] = {
        "heard_seconds": 1.0,
        "cores": 4,
        "memory_total": 8 * GIB,
        "memory_available": 8 * GIB,
    }
    return Offer(name=name, **{**values, **changes})


ALICE = Needs("alice")


@pytest.mark.parametrize(
    ("offers", "host"),
    [
        ([offer("a", servers=3), offer("b", servers=1)], "b"),
        ([offer("a", memory_available=GIB), offer("b")], "b"),
        ([offer("a", accounts="alice"), offer("b", accounts="bob")], "a"),
        ([offer("a", heard_seconds=40), offer("b")], "b"),
        ([offer("a", draining=True), offer("b", servers=9)], "b"),
        ([offer("a", trouble="its clock is 90 seconds behind the hub's"), offer("b")], "b"),
        ([offer("a", servers=3, cores=8), offer("b", servers=2)], "a"),
    ],
)
def test_servers_are_spread_over_what_fits(offers: list[Offer], host: str) -> None:
    assert place(ALICE, offers).host == host


def test_packing_fills_the_fullest_that_has_room() -> None:
    hosts = [offer("a"), offer("b", servers=2), offer("c", servers=3, reserved_memory=8 * GIB)]
    assert place(replace(ALICE, memory=GIB), hosts, "pack").host == "b"


def test_a_user_goes_where_the_last_server_was_if_that_fits() -> None:
    hosts = [offer("a"), offer("b", servers=9)]
    found = place(replace(ALICE, last_host="b"), hosts)
    assert (found.host, found.reason) == ("b", "its owner's servers were there before")
    hosts[1] = replace(hosts[1], draining=True)
    found = place(replace(ALICE, last_host="b"), hosts)
    assert found.host == "a"
    assert found.refused == {"b": "is draining"}


def test_each_host_says_what_it_lacked() -> None:
    needs = Needs("alice", labels={"zone": "x"}, memory=4 * GIB, cores=2, gpus=1)
    hosts = [
        offer("a", labels={"zone": "y"}, gpus=1),
        offer("b", labels={"zone": "x"}, reserved_memory=6 * GIB, reserved_cores=3.0),
        offer("c", labels={"zone": "x"}, heard_seconds=None),
        offer("d", heard_seconds=77.5),
    ]
    found = place(needs, hosts)
    assert found.host is None
    assert found.refused == {
        "a": "has zone=y, not zone=x",
        "b": "has 2048 MiB of memory free, not 4096 MiB; has 1 cores free, not 2;"
        " has 0 GPUs free, not 1",
        "c": "has not reported yet",
        "d": "has not been heard for 77 seconds",
    }
    assert found.reason.startswith("host a has zone=y, not zone=x; host b has 2048 MiB")
    assert place(needs, []).reason == "no host is configured to run servers"


def test_who_has_no_account_runs_where_all_share_one() -> None:
    hosts = [offer("a"), offer("b", accounts="shared-insecure", servers=5)]
    assert place(Needs(""), hosts).host == "b"
    assert "unix accounts only" in place(Needs(""), hosts[:1]).reason


SIZES = st.integers(0, 16)
NEEDS = st.builds(
    Needs,
    account=st.sampled_from(["alice", "bob"]),
    labels=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2),
    memory=SIZES,
    cores=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]),
    gpus=st.integers(0, 2),
    last_host=st.sampled_from([None, "h0", "h1", "h9"]),
)
OFFERS = st.lists(
    st.builds(
        Offer,
        name=st.just(""),
        heard_seconds=st.sampled_from([None, 1.0, 99.0]) | st.just(1.0),
        trouble=st.sampled_from(["", "", "", "its clock is off"]),
        draining=st.booleans(),
        accounts=st.sampled_from(["any", "alice", "bob"]),
        labels=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2),
        cores=st.integers(1, 4),
        memory_total=SIZES,
        memory_available=SIZES,
        gpus=st.integers(0, 2),
    ),
    max_size=4,
).map(lambda found: [replace(one, name=f"h{number}") for number, one in enumerate(found)])
STRATEGY = st.sampled_from(["spread", "pack"])


@given(NEEDS, OFFERS, STRATEGY)
def test_every_host_is_either_fit_or_says_why_not(needs: Needs, hosts: Any, strategy: Any) -> None:
    found = place(needs, hosts, strategy)
    fit = {one.name for one in hosts if not lacking(needs, one)}
    assert set(found.refused) == {one.name for one in hosts} - fit
    assert found.reason
    assert (found.host in fit) if fit else found.host is None
    if needs.last_host in fit:
        assert found.host == needs.last_host
    assert place(needs, hosts[::-1], strategy).host == found.host, "the order does not matter"


@given(st.lists(NEEDS, max_size=20), OFFERS, STRATEGY)
def test_however_many_come_no_host_promises_more_than_it_has(
    arrivals: list[Needs], hosts: Any, strategy: Any
) -> None:
    state = {one.name: one for one in hosts}
    for needs in arrivals:
        name = place(needs, list(state.values()), strategy).host
        if name is None:
            continue
        one = state[name]
        state[name] = replace(
            one,
            reserved_memory=one.reserved_memory + needs.memory,
            reserved_cores=one.reserved_cores + needs.cores,
            reserved_gpus=one.reserved_gpus + needs.gpus,
            servers=one.servers + 1,
        )
    for one in state.values():
        assert one.reserved_memory <= one.memory_total
        assert one.reserved_cores <= one.cores + 1e-6
        assert one.reserved_gpus <= one.gpus


@given(st.integers(1, 30), st.integers(1, 4))
def test_a_burst_is_spread_evenly(count: int, hosts: int) -> None:
    state = {f"h{n}": offer(f"h{n}") for n in range(hosts)}
    for _ in range(count):
        name = place(ALICE, list(state.values())).host
        assert name is not None
        state[name] = replace(state[name], servers=state[name].servers + 1)
    counts = [one.servers for one in state.values()]
    assert max(counts) - min(counts) <= 1
