"""Through a hard NAT to a peer behind a strict one: nobody knows a port, so one is searched for, politely.

    control   relay-1   relay-2 (public nodes)
       |         |         |
    ---+---------+---------+--- internet ---+---------------------------+
                                            |                           |
                              hard [apdm-adf, apdm-apdf]           easy [eim-apdf]
                                            |                           |
                                          alice                        bob
"""

import time

import pytest

from lab import LabError, wait_until
from test_netcheck import World
from traffic import Echo, Pulse

MAX_SOCKETS, MAX_PINGS = 256, 1024
IN_TIME = 5.5  # five seconds, and one look
OTHERS = 40  # mappings and sessions of all else: relays, control, STUN, what the NAT does


class Pair:
    def __init__(self, world, hard, easy, number="", **options):
        self.alice = world.behind(f"hard{number}", nat=hard, **options)
        self.bob = world.behind(f"easy{number}", nat=easy)
        self.routers = [node.host.interfaces[0][1].router for node in (self.alice, self.bob)]
        for node, other in ((self.alice, self.bob), (self.bob, self.alice)):
            node.wait_for_peer(other.name, timeout=15)
            node.wait_for_relay(timeout=15)
            node.wait_for(lambda s: s["nat_behaviour"]["age_ms"] is not None, "knows its NAT", 20)
        self.before = [router.counts() for router in self.routers]

    def made(self, what):
        """How many the routers of the hard and of the easy side made since."""
        return [router.counts()[what] - before[what] for router, before in zip(self.routers, self.before)]


def is_direct_in_time(pair, measured):
    with Echo(pair.bob.host), Pulse(pair.alice.host, pair.bob.ip) as pulse:
        try:
            took = pair.alice.wait_for_path(pair.bob.name, "direct", IN_TIME)
        except LabError:
            return False
        measured("time to direct, hard NAT", took, IN_TIME)
        pair.bob.wait_for_path(pair.alice.name, "direct", 2)
        pulse.keeps_going(20)
    return True


def test_a_hard_nat_and_a_strict_one_are_direct_within_five_seconds_and_the_routers_bear_it(lab, build, measured):
    """Two searches in a hundred find nothing, which test_hard_nat_fsm counts: then another pair is asked."""
    world = World(lab, build)
    for number in range(3):
        pair = Pair(world, "apdm-apdf", "eim-apdf", number)
        found = is_direct_in_time(pair, measured)
        assert pair.made("mappings_made")[0] <= MAX_SOCKETS + OTHERS
        assert pair.made("sessions_made")[1] <= MAX_PINGS + OTHERS
        if found:
            return
    raise AssertionError("three pairs in a row found no way")


def test_ports_in_steps_are_predicted(lab, build, measured):
    pair = Pair(World(lab, build), "apdm-apdf", "eim-apdf", ports="step:2")
    with Echo(pair.bob.host), Pulse(pair.alice.host, pair.bob.ip):
        measured("time to direct", pair.alice.wait_for_path(pair.bob.name, "direct", 8))

    assert pair.made("mappings_made")[0] <= 64 + OTHERS, "as few sockets as a prediction takes"


def test_two_hard_nats_are_never_searched(lab, build):
    pair = Pair(World(lab, build), "apdm-apdf", "apdm-apdf")
    with Echo(pair.bob.host), Pulse(pair.alice.host, pair.bob.ip) as pulse:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 5 and len(pulse.answered) > 100, 15, "talk by the relay")

    assert pair.alice.peer(pair.bob.name)["path"] == "relay"
    assert max(pair.made("mappings_made")) <= OTHERS + 20, "those of ordinary pings"
