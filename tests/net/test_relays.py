"""Relays: each node has a home, and reaches a peer at the peer's home, connecting to it on demand.

    control    relay     west
       |        |          |
    ---+--------+----------+--- internet ---+--- office [port-restricted] --- bob   (home: relay)
                                            |
                                            +--- cafe [symmetric] --- carol         (home: west)

bob and carol have no direct path. carol's home is west because the other was out of her reach when she
joined, and a node does not move for a while after it has chosen.
"""

import pytest

from overlay import Node, Overlay
from traffic import Echo, Pulse


def relays(node):
    """Which relays the node is connected to, and which of them is its home."""
    status = node.status()
    return ({r["name"] for r in status["relays"] if r["connected"]},
            next((r["name"] for r in status["relays"] if r["home"]), None))


@pytest.fixture
def overlay(lab, build):
    overlay = Overlay(lab, build, ())
    east = overlay.relay
    east.join(overlay.control.link())
    bob = overlay.add("bob")
    bob.join(overlay.control.link())
    bob.wait_for_relay()

    west = Node(build, lab.host("west", overlay.internet), public=True).start()
    west.join(overlay.control.link())
    carol = overlay.add("carol")
    overlay.routers["carol"].nft("table inet cut { chain forward { type filter hook forward priority -10;\n"
                                 f"ip daddr {east.host.ip} drop\n}}\n}}")
    carol.join(overlay.control.link())
    carol.wait_for(lambda s: s["home_relay"] and s["home_relay"]["name"] == "west", "home is west", 30)
    carol.wait_for(lambda s: any(r["connected"] and r["home"] for r in s["relays"]), "connected to west", 30)
    overlay.routers["carol"].nft("delete table inet cut")
    overlay.nodes["west"] = west
    return overlay


def test_a_peer_is_reached_at_its_home_relay_on_demand(overlay, measured):
    bob, carol = overlay.nodes["bob"], overlay.nodes["carol"]
    assert relays(bob) == ({"relay"}, "relay")

    with Echo(bob.host), Pulse(carol.host, bob.ip) as pulse:
        measured("first answer by two relays", pulse.first_answer())
        pulse.keeps_going(100)
        assert carol.peer("bob")["path"] == bob.peer("carol")["path"] == "relay"
        assert carol.peer("bob")["relay"] == "relay"
        assert bob.peer("carol")["relay"] == "west"

    assert relays(bob) == ({"relay", "west"}, "relay")
    assert relays(carol) == ({"relay", "west"}, "west")
