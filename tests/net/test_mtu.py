"""The MTU of paths: found by probes that cannot be fragmented, told inwards, good for both directions.

    control    relay          alice
       |         |              |
    ---+---------+---- internet (9000) ----+--- middle (a router) ---+--- far (MTU) ---+
                                                                                       |
                                                                                      bob

Bob's first link has the small MTU, so that he knows at once; alice's takes 9000, and she has to ask.
"""

import errno
import ipaddress
import json
import os
import socket
import statistics

import pytest

from lab import wait_until
from overlay import Control, Node
from test_hosts import Daemon
from traffic import ECHO_PORT, Echo, Pulse, Transfer

WIREGUARD = 32  # header and tag
INTERFACE = 8920


def fits(mtu, family):
    """The largest packet inside: the interface's, or less in WireGuard's steps of 16 bytes; never below 1280."""
    room = mtu - {4: 28, 6: 48}[family] - WIREGUARD
    return INTERFACE if room >= INTERFACE else max(1280, room // 16 * 16)


class Far:
    """Members of the network as drawn; IPv4 or IPv6 between alice and bob."""

    def __init__(self, lab, build, mtu, family=4, config=f"mtu = {INTERFACE}\n", bobs=""):
        self.lab, self.family = lab, family
        prefixes = ("2001:db8:1::/64", "2001:db8:2::/64") if family == 6 else (None, None)
        self.internet = lab.network("internet", v6=prefixes[0], mtu=9000)
        self.far = lab.network("far", "203.0.113.0/24", v6=prefixes[1], mtu=mtu)
        self.middle = lab.host("middle", self.internet)
        self.middle.attach(self.far)
        self.middle.sysctl("net.ipv4.ip_forward", 1)
        self.middle.sysctl("net.ipv6.conf.all.forwarding", 1)
        gateway = str(self.far.v4[1])
        self.control = Control(build, self._host("control")).start()
        relay = self._host("relay")
        addresses = [relay.ip, relay.ip6] if family == 6 else [relay.ip]
        public = "".join(f"address = {address}\n" for address in addresses)
        self.relay = Node(build, relay, config=f"[public]\n{public}").start()
        bob = lab.host("bob", self.far)
        bob.run(["ip", "route", "add", "default", "via", gateway])
        if family == 6:
            bob.run(["ip", "route", "add", "default", "via", str(self.far.v6[1])])
        alice = self._host("alice")
        self.alice, self.bob = (Node(build, host, config=config + more).start()
                                for host, more in ((alice, ""), (bob, bobs)))
        if family == 6:
            for host in (alice, bob):
                host.nft("table netdev only6 {\nchain in {\ntype filter hook ingress device eth0 priority 0;\n"
                         f"ip saddr {{ {alice.ip}, {bob.ip} }} meta l4proto udp drop\n}}\n}}\n")

    def _host(self, name):
        host = self.lab.host(name, self.internet)
        host.run(["ip", "route", "add", "203.0.113.0/24", "via", self.middle.ip])
        if self.family == 6:
            host.run(["ip", "route", "add", str(self.far.v6), "via", self.middle.ip6])
        return host

    def join(self):
        for node in (self.relay, self.alice, self.bob):
            node.join(self.control.link())
        for node, other in ((self.alice, "bob"), (self.bob, "alice")):
            node.wait_for_peer(other, timeout=15)
            node.wait_for_relay(timeout=15)
        return self

    def wait_for_mtu(self, mtu, timeout=20.0):
        for node, other in ((self.alice, "bob"), (self.bob, "alice")):
            node.wait_for_peer(other, lambda peer: peer["path"] == "direct" and peer["mtu"] == mtu,
                               f"is reached directly with MTU {mtu}", timeout=timeout)


def random_megabyte(path):
    path.write_bytes(os.urandom(1 << 20))
    return path


@pytest.mark.parametrize("mtu, family", [(m, f) for m in (1124, 1280, 1400, 1500, 9000) for f in (4, 6)
                                         if (m, f) != (1124, 6)])  # IPv6 has at least 1280 (RFC 8200)
def test_a_megabyte_passes_each_way_over(lab, build, tmp_path, mtu, family):
    net = Far(lab, build, mtu, family).join()
    file = random_megabyte(tmp_path / "file")
    nodes = net.alice, net.bob
    for source, target in (nodes, nodes[::-1]):
        assert Transfer(source.host, target.host, target.ip, file).same
    net.wait_for_mtu(fits(mtu, family))
    for source, target in (nodes, nodes[::-1]):
        assert Transfer(source.host, target.host, target.ip6, file).same
        assert source.peer(target.name)["path"] == "direct"


@pytest.mark.parametrize("mtu, family", [(1400, 4), (1400, 6)])
def test_both_sides_find_what_the_path_takes(lab, build, mtu, family):
    net = Far(lab, build, mtu, family).join()
    with Echo(net.bob.host), Pulse(net.alice.host, net.bob.ip) as pulse:
        pulse.first_answer()
        net.wait_for_mtu(fits(mtu, family))


def rate(source, target, *options):
    """Mbit/s of one TCP stream over the overlay, as its receiver counts."""
    server = target.host.start(["iperf3", "-s", "-1", "-B", target.ip, "--forceflush"], name="iperf3-server")
    wait_until(lambda: "listening" in server.output(), 10, "iperf3 listens")
    done = source.host.run(["iperf3", "-c", target.ip, "-t", "2", "-J", *options])
    server.wait(10)  # the next one has the same port
    return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 1e6


def shrink(net, mtu):
    """The far network has a smaller MTU from now on, as when a route changes to one through a tunnel."""
    for place, interface in ((net.far, "br0"), (net.middle, "eth1"), (net.bob.host, "eth0")):
        place.run(["ip", "link", "set", interface, "mtu", mtu])


@pytest.mark.slow
def test_over_9000_bytes_more_than_twice_as_much_goes_as_over_1280(lab, build, measured):
    net = Far(lab, build, 9000).join()
    with Echo(net.bob.host), Pulse(net.alice.host, net.bob.ip):
        net.wait_for_mtu(INTERFACE)
        large = [rate(net.alice, net.bob) for _ in range(3)]
        same_packets = [rate(net.alice, net.bob, "-M", "1240") for _ in range(3)]
        shrink(net, 1280)
        net.wait_for_mtu(1280, timeout=30)
        small = [rate(net.alice, net.bob) for _ in range(3)]

    at = {name: round(statistics.median(rates)) for name, rates in
          (("9000", large), ("9000, packets of 1280", same_packets), ("1280", small))}
    print("Mbit/s over", at)
    measured(f"throughput over 9000 against that over 1280: {at}", at["9000"] / at["1280"])
    assert at["9000"] >= 2 * at["1280"], at


IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO, IP_MTU = 10, 0, 2, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24


def udp(host, ip, discover, port=ECHO_PORT):
    s = host.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    if ":" in ip:
        s.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, discover)
    else:
        s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
    s.connect((ip, port))
    return s


def test_who_sends_too_large_a_packet_is_told_and_what_may_be_fragmented_arrives(lab, build):
    net = Far(lab, build, 1400).join()
    with Echo(net.bob.host), Pulse(net.alice.host, net.bob.ip):
        net.wait_for_mtu(fits(1400, 4))
        with net.bob.host.socket() as bobs, udp(net.alice.host, net.bob.ip, IP_PMTUDISC_DONT, 4000) as pieces:
            bobs.bind((net.bob.ip, 4000))
            bobs.settimeout(5)
            pieces.send(bytes(4000))
            assert len(bobs.recv(65535)) == 4000
        for ip, level, option in ((net.bob.ip, socket.IPPROTO_IP, IP_MTU),
                                  (net.bob.ip6, socket.IPPROTO_IPV6, IPV6_MTU)):
            with udp(net.alice.host, ip, IP_PMTUDISC_DO) as whole:
                whole.send(bytes(4000))
                wait_until(lambda: whole.getsockopt(level, option) == fits(1400, 4), 5, f"{ip}: the MTU is told")
                assert whole.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
                with pytest.raises(OSError) as refused:
                    whole.send(bytes(4000))
                assert refused.value.errno == errno.EMSGSIZE


RELAY_HEADER = 16


def fits_by_relay(mtu, family=4):
    """As fits(), by a relay: its header stands before WireGuard's."""
    room = mtu - {4: 28, 6: 48}[family] - RELAY_HEADER - WIREGUARD
    return INTERFACE if room >= INTERFACE else max(1280, room // 16 * 16)


def drop_udp(host, *others, others6=()):
    """No datagram of these comes in."""
    rules = [f"{family} saddr {{ {', '.join(sources)} }} meta l4proto udp drop\n" for family, sources in
             (("ip", [other.ip for other in others]), ("ip6", [other.ip6 for other in others6])) if sources]
    host.nft("table netdev far {\nchain in {\ntype filter hook ingress device eth0 priority 0;\n"
             f"{''.join(rules)}}}\n}}\n")


def part(net):
    """Alice and bob reach each other by the relay alone, and that by one family."""
    for host, other in ((net.alice.host, net.bob.host), (net.bob.host, net.alice.host)):
        if net.family == 6:
            drop_udp(host, other, net.relay.host, others6=[other])
        else:
            drop_udp(host, other)


def wait_for_relayed_mtu(net, mtu, timeout=20.0, nodes=("alice", "bob")):
    for node, other in ((net.alice, "bob"), (net.bob, "alice")):
        if node.name in nodes:
            node.wait_for_peer(other, lambda peer: peer["path"] == "relay" and peer["mtu"] == mtu,
                               f"is reached by relay with MTU {mtu}", timeout=timeout)


@pytest.mark.parametrize("mtu, family", [(1280, 4), (1400, 4), (1500, 4), (9000, 4), (1280, 6), (1400, 6), (9000, 6)])
def test_by_relay_a_megabyte_passes_each_way_and_the_narrower_leg_counts(lab, build, tmp_path, mtu, family):
    """Bob's leg has the small MTU: he knows at once; alice learns by probes that the relay sends on whole."""
    net = Far(lab, build, mtu, family)
    part(net)
    net.join()
    file = random_megabyte(tmp_path / "file")
    nodes = net.alice, net.bob
    for source, target in (nodes, nodes[::-1]):
        assert Transfer(source.host, target.host, target.ip, file).same
    with Echo(net.bob.host), Pulse(net.alice.host, net.bob.ip):
        wait_for_relayed_mtu(net, fits_by_relay(mtu, family))
    for source, target in (nodes, nodes[::-1]):
        assert Transfer(source.host, target.host, target.ip6, file).same
        assert source.peer(target.name)["path"] == "relay"


@pytest.mark.parametrize("by_tls, mtu", [("alice", fits_by_relay(1400)), ("both", INTERFACE)])
def test_over_tls_a_leg_takes_every_size_and_the_other_one_counts(lab, build, tmp_path, by_tls, mtu):
    net = Far(lab, build, 1400)
    tls = [net.alice] if by_tls == "alice" else [net.alice, net.bob]
    for node, other in ((net.alice, net.bob), (net.bob, net.alice)):
        drop_udp(node.host, other.host, *([net.relay.host] if node in tls else []))
    net.join()
    file = random_megabyte(tmp_path / "file")
    with Echo(net.bob.host), Pulse(net.alice.host, net.bob.ip):
        wait_for_relayed_mtu(net, mtu, nodes=("alice",) if by_tls == "alice" else ("alice", "bob"))
        nodes = net.alice, net.bob
        for source, target in (nodes, nodes[::-1]):
            assert Transfer(source.host, target.host, target.ip, file, timeout=30).same


def route_mtu(host, ip):
    """What the kernel lets packets to that address be at most, None: as the interface."""
    words = host.run(["ip", "route", "get", ip]).stdout.split()
    return int(words[words.index("mtu") + 1]) if "mtu" in words else None


@pytest.mark.parametrize("mtu, path", [(1280, "direct"), (1400, "direct"), (9000, "direct"), (1400, "relay")])
def test_with_the_wireguard_of_a_daemon_the_kernel_is_told_by_routes(lab, build, tmp_path, mtu, path):
    """Bob has wireguard-go. Who was never asked for has the least; who is used has the path's, as long as it is."""
    net = Far(lab, build, mtu, bobs="wireguard = uapi\n")
    if path == "relay":
        part(net)
    daemon = Daemon(build, net.bob.host, "wireguard-go")
    net.join()
    assert daemon.answers()
    bob = net.bob.host
    assert route_mtu(bob, net.alice.ip) == route_mtu(bob, net.alice.ip6) == 1280
    found = fits(mtu, 4) if path == "direct" else fits_by_relay(mtu)
    with Echo(bob), Pulse(net.alice.host, net.bob.ip):
        for node, other in ((net.alice, "bob"), (net.bob, "alice")):
            node.wait_for_peer(other, lambda peer: peer["path"] == path and peer["mtu"] == found,
                               f"has MTU {found}, {path}", timeout=20)
        wait_until(lambda: route_mtu(bob, net.alice.ip) == route_mtu(bob, net.alice.ip6) == found, 5,
                   f"the routes have MTU {found}")
        file = random_megabyte(tmp_path / "file")
        nodes = net.alice, net.bob
        for source, target in (nodes, nodes[::-1]):
            assert Transfer(source.host, target.host, target.ip, file).same
            assert Transfer(source.host, target.host, target.ip6, file).same
        with udp(bob, net.alice.ip, IP_PMTUDISC_DO) as whole:
            with pytest.raises(OSError) as refused:
                whole.send(bytes(found - 27))
            assert refused.value.errno == errno.EMSGSIZE
            whole.send(bytes(found - 28))
    assert found == 1280 or route_mtu(bob, net.alice.ip) == found
    net.bob.kill()
    net.bob.start()
    wait_until(lambda: route_mtu(bob, net.alice.ip) == route_mtu(bob, net.alice.ip6) == 1280, 10,
               "what a node that was killed has left is gone")
    assert net.bob.program.stop() == 0
    assert routes_to_the_interface(bob) == []


def ways_of(host):
    """What the kernel says of the way to an address."""
    return lambda ip: host.run(["ip", "route", "get", ip], check=False).stdout


def test_routes_of_a_daemons_wireguard_come_back_and_leave_those_of_others(lab, build):
    """Bob has wireguard-go. His interface goes down and up; then a LAN of his has the overlay's network."""
    net = Far(lab, build, 1400, bobs="wireguard = uapi\n")
    daemon = Daemon(build, net.bob.host, "wireguard-go")
    bob = net.bob.host
    way = ways_of(bob)
    bob.run(["ip", "address", "add", "192.168.9.1/24", "dev", "p2p0"])
    net.join()
    assert daemon.answers()
    assert f"src {net.bob.ip}" in way(net.alice.ip)
    found = fits(1400, 4)
    with Echo(bob), Pulse(net.alice.host, net.bob.ip) as pulse:
        wait_until(lambda: route_mtu(bob, net.alice.ip) == found, 20, "the route has the path's MTU")
        bob.run(["ip", "link", "set", "p2p0", "down"])
        bob.run(["ip", "link", "set", "p2p0", "up"])
        wait_until(lambda: route_mtu(bob, net.alice.ip) == found, 10, "the routes are there again")
        pulse.keeps_going(20)
        assert f"src {net.bob.ip}" in way(net.alice.ip)

    network = ipaddress.ip_interface(f"{net.bob.ip}/16").network
    net.bob.kill()
    bob.run(["ip", "link", "add", "lan0", "type", "bridge"])
    bob.run(["ip", "route", "flush", "dev", "p2p0"])
    bob.run(["ip", "address", "add", f"{network[-2]}/16", "dev", "lan0"])
    bob.run(["ip", "link", "set", "lan0", "up"])
    net.bob.start()
    wait_until(lambda: any(str(network) in line for line in routes_to_the_interface(bob)), 10, "the node's route is there")
    assert "dev lan0" in way(net.alice.ip) and "dev lan0" in way(str(network[-9]))
    assert net.bob.program.stop() == 0
    assert "dev lan0" in way(net.alice.ip)


def test_what_a_killed_node_has_left_is_gone_when_the_next_one_has_1280_without_ipv6(lab, build):
    net = Far(lab, build, 1400, bobs="wireguard = uapi\n")
    daemon = Daemon(build, net.bob.host, "wireguard-go")
    bob = net.bob.host
    bob.sysctl("net.ipv6.conf.p2p0.disable_ipv6", 1)
    net.join()
    assert daemon.answers()
    with Echo(bob), Pulse(net.alice.host, net.bob.ip):
        wait_until(lambda: route_mtu(bob, net.alice.ip) == fits(1400, 4), 20, "the route has the path's MTU")
    assert "no IPv6 in the overlay" in net.bob.program.output()
    assert "stay small" not in net.bob.program.output()
    net.bob.kill()
    bob.run(["ip", "route", "add", "10.77.200.9", "dev", "p2p0", "proto", "210", "mtu", "1400"])  # to who is no more
    net.bob.config.write_text(net.bob.config.read_text().replace(f"mtu = {INTERFACE}", "mtu = 1280"))
    net.bob.start()
    wait_until(lambda: any("proto kernel" in line for line in routes_to_the_interface(bob)), 10, "the kernel's route is there")
    assert not any("proto 210" in line for line in routes_to_the_interface(bob))
    net.bob.wait_for_relay(timeout=15)
    with Echo(bob), Pulse(net.alice.host, net.bob.ip) as pulse:
        pulse.first_answer(30)  # WireGuard may need 15 s to find out that its session is gone


def routes_to_the_interface(host):
    """Routes that lead to p2p0."""
    return [line for family in ("-4", "-6") for line in
            host.run(["ip", family, "route", "show", "dev", "p2p0"], check=False).stdout.splitlines()]


def drop_pieces(host):
    """As some firewalls do: what is a fragment does not come in."""
    host.nft("table netdev pieces {\nchain in {\ntype filter hook ingress device eth0 priority 1;\n"
             "ip frag-off & 0x3fff != 0 counter drop\n}\n}\n")


@pytest.mark.parametrize("path", ["direct", "relay"])
def test_nothing_needs_pieces_where_1280_fits(lab, build, tmp_path, path):
    net = Far(lab, build, 1400)
    for host in (net.alice.host, net.bob.host, net.relay.host):
        drop_pieces(host)
    if path == "relay":
        part(net)
    net.join()
    file = random_megabyte(tmp_path / "file")
    if path == "direct":
        with Echo(net.bob.host), Pulse(net.alice.host, net.bob.ip):
            net.wait_for_mtu(fits(1400, 4))
    nodes = net.alice, net.bob
    for source, target in (nodes, nodes[::-1]):
        assert Transfer(source.host, target.host, target.ip, file, timeout=30).same
        assert Transfer(source.host, target.host, target.ip6, file, timeout=30).same
        assert source.peer(target.name)["path"] == path
