"""A direct path under the load of its own members: its queue is theirs, and no reason to leave it.

    control   relay (public node)
       |        |
    ---+--------+--- internet ---+------------------+
                                 |                  |
                               alice == cable ==== bob

By the internet alice and bob reach the relay, but each other only by TCP; the cable is slow and has a
deep queue, so that bulk traffic makes a round trip by it much longer than one by the relay.
"""

import re

import pytest

from lab import wait_until
from overlay import Control, Node
from traffic import Echo, Pulse

CABLE_MBIT, QUEUE_MS = 16, 250
LOAD_S = 30  # three surveys, ten seconds apart


def slow(host, interface):
    host.run(["tc", "qdisc", "replace", "dev", interface, "root", "tbf", "rate", f"{CABLE_MBIT}mbit",
              "burst", "32kb", "latency", f"{QUEUE_MS}ms"])


def members(lab, build):
    internet = lab.network("internet")
    control = Control(build, lab.host("control", internet)).start()
    relay = Node(build, lab.host("relay", internet), public=True).start()
    hosts = [lab.host(name, internet) for name in ("alice", "bob")]
    hosts[0].cable(hosts[1])
    for host in hosts:
        slow(host, "eth1")
        host.nft("table netdev far {\nchain in {\ntype filter hook ingress device eth0 priority 0;\n"
                 f"ip saddr {{ {hosts[0].ip}, {hosts[1].ip} }} meta l4proto udp drop\n}}\n}}\n")
    nodes = [Node(build, host).start() for host in hosts]
    for node in (relay, *nodes):
        node.join(control.link())
    for node, other in (nodes, nodes[::-1]):
        node.wait_for_peer(other.name, timeout=15)
        node.wait_for_relay(timeout=15)
    return nodes


def paths(node, peer):
    """Every path that the node ever set for the peer, in order."""
    return re.findall(rf"peer={peer} path=(\S+)", node.program.output())


def fill(alice, bob, *options):
    """iperf3 over the overlay; while it runs, the round trips by the cable have the queue in them."""
    server = bob.host.start(["iperf3", "-s", "-1", "-B", bob.ip, "--forceflush"], name="iperf3-server")
    wait_until(lambda: "listening" in server.output(), 10, "iperf3 listens")
    client = alice.host.start(["iperf3", "-c", bob.ip, "-t", str(LOAD_S), *options], name="iperf3")
    client.wait(LOAD_S + 30)


@pytest.mark.slow
def test_a_path_full_of_its_own_traffic_is_not_left_for_an_idle_relay(lab, build, measured):
    alice, bob = members(lab, build)
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        alice.wait_for_path("bob", "direct")
        bob.wait_for_path("alice", "direct")
        before = {node: len(paths(node, peer)) for node, peer in ((alice, "bob"), (bob, "alice"))}
        fill(alice, bob)
        measured("round trip under load", pulse.round_trip())

    for node, peer in ((alice, "bob"), (bob, "alice")):
        assert "relay" not in paths(node, peer)[before[node]:]
