"""Failover: one thing fails while traffic flows, and the gap is printed: a second at most, by whatever way.

    control   relay (public node)
       |        |
    ---+--------+------- internet -------+--------------------+
                                         |                    |
                                  home [the test's]    office [the test's]
                                         |                    |
                                       alice                 bob

A datagram every 10 ms from alice to bob and back, by a direct path. What counts is the longest time without an
answer from just before the fault on. Relays that fail under pairs that have no other way are in
test_relay_faults.py; all UDP blocked, with the direct path and the relay's, is there and in test_overlay.py.
"""

import time

import pytest

from lab import wait_until
from overlay import Overlay
from traffic import Echo, Pulse, Stream

pytestmark = pytest.mark.alone

GAP = 1.0  # seconds, at most, while traffic flows

# Like most routers at home, and like those that map anew: after a reboot no port is what it was.
HOME = {"nat": "port-restricted"}
HOME_RANDOM = {"nat": "eim-apdf", "ports": "random"}


class World:
    def __init__(self, lab, build, nats):
        self.overlay = Overlay(lab, build, nats=nats).join()
        self.alice, self.bob = self.overlay.nodes["alice"], self.overlay.nodes["bob"]
        self.echo = Echo(self.bob.host)
        self.pulse = Pulse(self.alice.host, self.bob.ip)
        self.wait_for_direct()
        self.pulse.keeps_going(100)

    def wait_for_direct(self, timeout=10.0):
        self.alice.wait_for_path("bob", "direct", timeout)
        self.bob.wait_for_path("alice", "direct", timeout)

    def gap(self, fault, answers=300, timeout=20.0):
        """Seconds of the longest gap from the fault on; the stream must run well again."""
        begin = time.monotonic()
        fault()
        self.pulse.gap_after(time.monotonic(), timeout)
        self.pulse.keeps_going(answers, timeout)
        return self.pulse.longest_gap(begin - 0.05)

    def drop_between(self, which="", senders=("alice", "bob")):
        """Drops what nftables calls so of the direct path, as these send it."""
        ips = {name: self.overlay.routers[name].ip for name in ("alice", "bob")}
        other = {"alice": "bob", "bob": "alice"}
        rules = "\n".join(f"ip saddr {ips[name]} ip daddr {ips[other[name]]} {which} drop" for name in senders)
        self.overlay.internet.nft("table bridge cut { chain forward { type filter hook forward priority 0;\n"
                                  f"{rules}\n}}\n}}")

    def heal(self):
        self.overlay.internet.nft("delete table bridge cut")

    def close(self):
        self.pulse.close()
        self.echo.close()


@pytest.fixture
def world(lab, build, request):
    world = World(lab, build, {name: getattr(request, "param", HOME) for name in ("alice", "bob")})
    yield world
    world.close()


# WireGuard's data by its first bytes, behind the eight of UDP's header.
DATA = "meta l4proto udp @th,64,32 0x04000000"

which_way = pytest.mark.parametrize("senders", [("alice", "bob"), ("alice",), ("bob",)],
                                    ids=["both ways", "from alice", "from bob"])


def name_of(senders):
    return " and ".join(senders)


@which_way
def test_the_direct_path_is_dropped_silently(world, measured, senders):
    measured(f"gap: direct path dropped, what {name_of(senders)} send", world.gap(lambda: world.drop_between(senders=senders)), GAP)


@which_way
def test_only_the_data_of_the_direct_path_is_dropped(world, measured, senders):
    """Pings pass, and say nothing."""
    measured(f"gap: only data dropped, what {name_of(senders)} send",
             world.gap(lambda: world.drop_between(DATA, senders)), GAP)
    before = time.monotonic()
    world.pulse.keeps_going(500)
    measured(f"gap: only data dropped, what {name_of(senders)} send, later", world.pulse.longest_gap(before), GAP)


def test_only_the_data_is_dropped_of_who_gets_no_answer(world, measured):
    """alice only sends, bob only receives: nothing that comes back could tell her."""
    world.pulse.close()
    with Stream(world.alice.host, world.bob.host, world.bob.ip) as stream:
        stream.keeps_going(300)
        begin = time.monotonic()
        world.drop_between(DATA)
        wait_until(lambda: stream.longest_gap(begin - 0.05) > 0.1, 20, "the stream stops and flows again")
        stream.keeps_going(300)
        measured("gap: only data dropped, and it is one way", stream.longest_gap(begin - 0.05), GAP)


def test_direct_is_taken_again_when_data_passes_again(world, measured):
    world.gap(lambda: world.drop_between(DATA), answers=100)
    world.alice.wait_for_path("bob", "relay")
    world.heal()
    begin = time.monotonic()
    world.wait_for_direct(40)
    measured("gap: back from the relay when data passes again", world.pulse.longest_gap(begin), GAP)


def test_the_relay_is_taken_when_the_direct_path_loses_a_quarter(world, measured):
    """Not at once: who leaves a way must be sure of its loss, which takes some tens of pings (sim_flapping: 12 s, 16 s)."""
    begin = time.monotonic()
    world.drop_between("numgen random mod 100 < 25")
    for node, peer in ((world.alice, "bob"), (world.bob, "alice")):
        node.wait_for_path(peer, "relay", 60)
    measured("both by relay, after 25 % loss began", time.monotonic() - begin, 40)
    taken = time.monotonic()
    world.pulse.keeps_going(300)
    assert world.pulse.lost(since=taken) <= 3


@pytest.mark.parametrize("world, what", [(HOME, ""), (HOME_RANDOM, ", new ports")], indirect=["world"],
                         ids=["same ports", "new ports"])
def test_a_nat_is_rebooted(world, measured, what):
    measured("gap: NAT rebooted" + what, world.gap(world.overlay.routers["alice"].reboot), GAP)


@pytest.mark.parametrize("world", [HOME_RANDOM], indirect=True, ids=["new ports"])
def test_a_nat_comes_back_with_another_public_address(world, measured):
    measured("gap: NAT rebooted, new public address",
             world.gap(lambda: world.overlay.routers["alice"].reboot("198.51.100.99")), GAP)


def test_the_relay_is_killed(world, measured):
    measured("gap: relay killed, direct path", world.gap(world.overlay.relay.kill), GAP)


def test_control_is_killed(world, measured):
    measured("gap: control killed", world.gap(world.overlay.control.kill), GAP)


def test_a_peer_is_restarted(world, measured):
    """Killed and started at once: the gap has the time in it in which there is no peer."""
    def restart():
        world.bob.kill()
        world.bob.start()
    measured("gap: peer restarted", world.gap(restart), GAP)
    world.wait_for_direct(30)


def test_an_address_changes(world, measured):
    router = world.overlay.routers["bob"]
    measured("gap: address changed", world.gap(lambda: world.bob.host.move(str(router.inside.v4[99]))), GAP)
