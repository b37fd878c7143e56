"""The day of who runs a relay: it is drained, restarted in place, watched.

UDP is blocked at both homes, so that all traffic goes by a relay.
"""

import time

import pytest

from overlay import Node, Overlay
from traffic import Echo, Pulse

DRAIN_S = 2
GAP_S = 1.0  # the longest silence that a user may see


@pytest.fixture
def overlay(lab, build):
    """alice and bob, with two relays to choose from."""
    overlay = Overlay(lab, build)
    for router in overlay.routers.values():
        router.block_udp()
    second = Node(build, lab.host("second", overlay.internet), public=True).start()
    overlay.nodes["second"] = second
    for name in ("relay", "second", "alice", "bob"):
        overlay.nodes[name].join(overlay.control.link())
        if name in ("relay", "second"):
            overlay.control.admin("relay", "add", name)
    for name in ("alice", "bob"):
        overlay.nodes[name].wait_for_relay()
    for one, other in (("alice", "bob"), ("bob", "alice")):
        overlay.nodes[one].wait_for_peer(other)
    return overlay


def clients(node):
    return {client["name"] for client in node.rpc("relay.status")["clients"]}


def test_a_drained_relay_is_left_within_a_second_and_empty_when_the_command_ends(overlay, measured):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        pulse.keeps_going(100)
        drained = overlay.nodes[bob.home()]
        begin = time.monotonic()
        done = drained.ctl("relay", "drain", "--deadline", str(DRAIN_S))
        assert "The relay is empty" in done.stdout
        assert not clients(drained)
        pulse.keeps_going(100)
        gap = pulse.longest_gap(begin)
        measured("longest gap while the relay drained", gap)
        assert gap < GAP_S
        other = ({"relay", "second"} - {drained.name}).pop()
        assert bob.home() == alice.home() == other
        assert "draining" in drained.ctl("relay", "status").stdout

    drained.ctl("relay", "undrain")
    assert not drained.rpc("relay.status")["draining"]
