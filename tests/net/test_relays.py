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


def test_a_public_node_is_a_relay_from_when_an_admin_adds_it_until_one_removes_it(lab, build):
    """And the nodes follow at once. A link that is for relays adds those that join with it (overlay.py)."""
    overlay = Overlay(lab, build, ())
    control, gate = overlay.control, overlay.relay
    gate.join(control.admin("key", "create")["link"])
    bob = overlay.add("bob")
    bob.join(control.link())
    assert [(r["name"], r["added"], r["public"]) for r in control.admin("relay", "list")["relays"]] == \
        [("relay", False, True)]
    gate.program.wait_for_log("an admin adds it with 'p2pctl admin relay add relay'")
    assert bob.status()["relays"] == []

    assert control.admin("relay", "add", "relay", "--region", "eu-west")["public"]
    bob.wait_for_relay()
    assert control.admin("relay", "list")["relays"][0]["region"] == "eu-west"

    control.admin("relay", "remove", "relay")
    bob.wait_for(lambda status: status["relays"] == [], "no relay any more")
    refused = control.admin("relay", "remove", "relay", check=False)
    assert refused.returncode != 0 and "is no relay" in refused.stdout + refused.stderr
