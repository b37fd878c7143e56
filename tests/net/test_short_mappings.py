"""Members behind NATs that forget a mapping of which nothing went out for 20 to 30 s.

    control   relay-1   relay-2 (public nodes)
       |         |         |
    ---+---------+---------+--- internet ---+--- home [eim-eif, 20 s] --- alice
                                            +--- office [eim-apdf, 30 s] --- bob
                                            +--- cafe [apdm-apdf, 30 s] --- carol

Ports are random: an alice who lets her mapping end has another outside port, at which nobody looks for her.
"""

import re
import time

import pytest

from test_netcheck import World
from traffic import Echo, Pulse

NATS = {"home": ("eim-eif", 20), "office": ("eim-apdf", 30), "cafe": ("apdm-apdf", 30)}
NEARLY_IDLE, IDLE = 45.0, 40.0
INTERVAL = 7.0
GAP = 1.0


def outside(node):
    return next((e["endpoint"] for e in node.status()["endpoints"] if e["kind"] == "stun"), None)


def paths(node, peer):
    return re.findall(rf"peer={peer} path=(\S+)", node.program.output())


@pytest.mark.slow
def test_where_mappings_end_after_20_s_direct_paths_last_and_an_idle_node_stays_where_it_was_said_to_be(lab, build, measured):
    world = World(lab, build)
    alice, bob, carol = (world.behind(name, nat=nat, timeout_s=seconds, refresh="outbound", ports="random")
                         for name, (nat, seconds) in NATS.items())
    for node, other in ((alice, bob), (bob, alice), (carol, alice), (alice, carol)):
        node.wait_for_peer(other.name, timeout=15)
        node.wait_for_relay(timeout=15)

    with Echo(bob.host):
        with Pulse(alice.host, bob.ip) as pulse:
            alice.wait_for_path(bob.name, "direct")
            bob.wait_for_path(alice.name, "direct")
            pulse.keeps_going(50)
        before = len(paths(alice, bob.name)), len(paths(bob, alice.name))
        with Pulse(alice.host, bob.ip, interval=INTERVAL) as pulse:
            time.sleep(NEARLY_IDLE)  # hardly any traffic, for longer than any of the mappings lasts by itself
            assert pulse.lost(until=time.monotonic() - GAP) == 0
        changes = paths(alice, bob.name)[before[0]:] + paths(bob, alice.name)[before[1]:]
        assert "relay" not in changes, "hardly any traffic: the way stays the direct one"

        here = outside(alice)
        time.sleep(IDLE)
        assert outside(alice) == here, "the mapping that others were told lasts"
        with Pulse(alice.host, bob.ip) as pulse:
            measured("first answer after 40 s without traffic", pulse.first_answer(), GAP)
            pulse.keeps_going(200)
            measured("gap: the direct path after 40 s without traffic", pulse.longest_gap(), GAP)
    with Echo(alice.host), Pulse(carol.host, alice.ip) as pulse:
        measured("carol is direct with alice, who was told where long ago", carol.wait_for_path(alice.name, "direct", 5), 2)
        pulse.keeps_going(50)
        assert carol.peer(alice.name)["endpoint"] == here
