"""Machines and networks that are not like the others: no IPv6, no relay, a large MTU."""

import time

import pytest

from overlay import Control, Node, Overlay
from traffic import Echo, Pulse


def test_two_nodes_reach_each_other_where_there_is_no_relay_at_all(lab, build):
    internet = lab.network("internet")
    control = Control(build, lab.host("control", internet)).start()
    alice, bob = (Node(build, lab.host(name, internet)).start() for name in ("alice", "bob"))
    for node in (alice, bob):
        node.join(control.link())
    alice.wait_for_peer("bob")
    bob.wait_for_peer("alice")

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        alice.wait_for_path("bob", "direct")

    assert alice.home() is None and alice.status()["relays"] == []


def test_a_machine_without_ipv6(lab, build):
    overlay = Overlay(lab, build)
    for name in ("alice", "relay"):
        node = overlay.nodes[name]
        node.program.stop()
        node.host.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
        node.host.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        node.start()
    overlay.join()
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        alice.wait_for_path("bob", "direct")

    assert alice.program.stop() == 0


@pytest.mark.parametrize("mtu", [1420, 9000])
def test_large_packets_go_by_the_relay_and_directly(lab, build, mtu):
    overlay = Overlay(lab, build, ())
    names = ("bob", "carol")  # whose NATs leave the relay only
    for name in names:
        overlay.add(name)
        node = overlay.nodes[name]
        node.program.stop()
        node.config.write_text(node.config.read_text() + f"mtu = {mtu}\n")
        node.start()
    overlay.join()
    bob, carol = (overlay.nodes[name] for name in names)

    with Echo(bob.host), Pulse(carol.host, bob.ip, size=mtu - 28) as pulse:
        pulse.first_answer()
        pulse.keeps_going(20)
        assert carol.peer("bob")["path"] == "relay"
        learned = time.monotonic()  # by the first that is too large each side learns the MTU; some are under way by then
        pulse.keeps_going(50)
        assert pulse.lost() <= 20 and pulse.lost(since=learned) == 0


def test_a_public_node_tells_its_public_address_also_when_a_nat_has_it(lab, build):
    overlay = Overlay(lab, build, ())
    cloud = Node(build, lab.host("cloud", overlay.internet),
                 config="[public]\naddress = 203.0.113.5\n").start()
    overlay.nodes["cloud"] = cloud
    cloud.join(overlay.control.link())

    endpoints = [e["endpoint"] for e in cloud.status()["endpoints"]]

    assert any(e.startswith("203.0.113.5:") for e in endpoints), endpoints


def test_a_listen_port_that_is_taken_is_said(lab, build):
    overlay = Overlay(lab, build, ())
    host = lab.host("busy", overlay.internet)
    with host.socket() as taken:
        taken.bind(("0.0.0.0", 5555))
        busy = Node(build, host, config="listen_port = 5555\n").start()
        busy.join(overlay.control.link())

    busy.program.wait_for_log("UDP port 5555 is taken")


def test_a_node_has_the_same_udp_port_after_a_restart(lab, build):
    """So that mappings, forwarded ports and what peers know of it stay true."""
    overlay = Overlay(lab, build, ("bob",)).join()
    bob = overlay.nodes["bob"]
    endpoints = sorted(e["endpoint"] for e in bob.status()["endpoints"])
    assert endpoints
    bob.kill()
    bob.start()
    bob.wait_for(lambda s: sorted(e["endpoint"] for e in s["endpoints"]) == endpoints, "the endpoints of before")
