"""Which of several ways packets take: the LAN before the way round by the router, IPv6 where NATs of IPv4 are in
the way, the faster network when it appears. That the relay wins over a path that loses much is in tests/sim.
"""

import time

import pytest

from lab import wait_until
from overlay import Control, Node
from reach import host_of
from traffic import Echo, Pulse

GAP = 1.0  # seconds, at most, while traffic flows


class Net:
    """Control and a relay on the internet; members that are added where a test wants them."""

    def __init__(self, lab, build, v6=None):
        self.lab, self.build = lab, build
        self.internet = lab.network("internet", v6=v6)
        self.control = Control(build, lab.host("control", self.internet)).start()
        self.relay = Node(build, lab.host("relay", self.internet), public=True).start()
        self.relay.join(self.control.link())
        self.members = []

    def member(self, name, network):
        node = Node(self.build, self.lab.host(name, network)).start()
        node.join(self.control.link())
        self.members.append(node)
        return node

    def wait_until_known(self):
        for node in self.members:
            node.wait_for_relay(timeout=15)
            for other in self.members:
                if other is not node:
                    node.wait_for_peer(other.name, timeout=15)


def by(a, b):
    """The addresses by which both send to each other, directly alone; None for one that does not."""
    entries = [node.peer(other.name) for node, other in ((a, b), (b, a))]
    return [host_of(e["endpoint"]) if e["path"] == "direct" else None for e in entries]


def wait_for(a, b, addresses, timeout=10):
    wait_until(lambda: by(a, b) == addresses, timeout, lambda: f"by {addresses}, but {by(a, b)}", 0.02)


@pytest.mark.alone
def test_the_lan_is_taken_before_the_hairpin_which_is_there_when_it_fails(lab, build, measured):
    """
        internet --- home [eim-eif, hairpin] --- bridge --+--- alice
                                                          +--- bob
    """
    net = Net(lab, build)
    home = lab.router("home", net.internet, nat="eim-eif", hairpin="external")
    alice, bob = (net.member(name, home.inside) for name in ("alice", "bob"))
    net.wait_until_known()

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        wait_for(alice, bob, [bob.host.ip, alice.host.ip])
        pulse.keeps_going(300)
        assert by(alice, bob) == [bob.host.ip, alice.host.ip]

        begin = time.monotonic()
        for node in (alice, bob):
            _, network, port = node.host.interfaces[0]
            network._commands([f"link set dev {port} type bridge_slave isolated on"])
        wait_for(alice, bob, [home.ip, home.ip])
        measured("gap: from the LAN to the hairpin", pulse.longest_gap(begin), GAP)


@pytest.fixture
def dual(lab, build):
    """Members behind NATs of IPv4 that nobody punches through; alice and bob have IPv6 behind firewalls, too."""
    net = Net(lab, build, v6="2001:db8::/64")
    homes = {"alice": ("apdm-apdf", "2001:db8:1::/64"), "bob": ("apdm-apdf", "2001:db8:2::/64"), "carol": ("eim-adf", None)}
    for name, (nat, v6) in homes.items():
        router = lab.router(f"{name}-home", net.internet, nat=nat, inside6=v6)
        net.member(name, router.inside).router = router
    net.wait_until_known()
    return net


def test_where_both_have_ipv6_strict_nats_of_ipv4_are_no_obstacle(dual, measured):
    alice, bob, carol = dual.members
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        measured("direct by IPv6", max(alice.wait_for_path("bob", "direct"), bob.wait_for_path("alice", "direct")), 2)
        pulse.keeps_going(100)
        assert by(alice, bob) == [f"[{bob.host.ip6}]", f"[{alice.host.ip6}]"]
    with Echo(carol.host), Pulse(alice.host, carol.ip) as pulse:  # who has IPv4 alone
        measured("direct where one has IPv6", alice.wait_for_path("carol", "direct"), 2)
        pulse.keeps_going(100)
        assert by(alice, carol) == [carol.router.ip, alice.router.ip]


@pytest.mark.alone
def test_a_faster_network_is_taken_when_it_appears_and_left_when_it_goes(lab, build, measured):
    """
        control   relay           alice ==========(fast, IPv6)========== bob
           |        |               |                                     |
        ---+--------+--- internet --+-- 40 ms ---------------------------+
    """
    net = Net(lab, build)
    alice, bob = (net.member(name, net.internet) for name in ("alice", "bob"))
    net.wait_until_known()
    alice.host.delay(20)
    fast = lab.network("fast", v4=None, v6="2001:db8:f::/64")

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        wait_for(alice, bob, [bob.host.ip, alice.host.ip])
        pulse.keeps_going(100)
        begin = time.monotonic()
        for node in (alice, bob):
            node.host.attach(fast)
        # At once, or, when the slow way was confirmed first, after some surveys, 10 s apart.
        wait_for(alice, bob, [f"[{bob.host.ip6}]", f"[{alice.host.ip6}]"], 60)
        measured("gap: to the faster network", pulse.longest_gap(begin), GAP)
        measured("the faster network is taken after", time.monotonic() - begin)
        pulse.keeps_going(100)

        begin = time.monotonic()
        alice.host.unplug("eth1")
        pulse.gap_after(begin)
        pulse.keeps_going(200)
        measured("gap: the faster network is gone", pulse.longest_gap(begin), GAP)
        wait_for(alice, bob, [bob.host.ip, alice.host.ip])
