"""The lab's NATs in RFC 4787's words: each behaves as it was asked to, which plain sockets measure.

    server-1 ---+
    server-2 ---+-- internet --- router [NAT] --- inside --- host, other

What must not arrive is not waited for: the router counts what it has dropped.
"""

import errno
import socket
import threading
import time

import pytest

from lab import Lab, USERSPACE_NAT_TYPES, _marked, wait_until

NEVER = 0.3  # seconds that tell "does not arrive" where nothing counts it
PORTS = (3478, 3479)
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14


def udp(host, port=0, ip=None, family=socket.AF_INET):
    s = host.socket(family)
    s.bind((ip or (host.ip if family == socket.AF_INET else host.ip6), port))
    s.settimeout(5)
    return s


def ask(client, server, payload=b"?"):
    """The address a server saw the client's datagram come from, which it answers."""
    client.sendto(payload, server.getsockname())
    seen = server.recvfrom(65535)[1]
    server.sendto(payload, seen)
    return seen


def arrived(receiver):
    """The source of a datagram that is there already; None: there is none."""
    patience = receiver.gettimeout()
    receiver.settimeout(0)
    try:
        return receiver.recvfrom(65535)[1]
    except BlockingIOError:
        return None
    finally:
        receiver.settimeout(patience)


class Net:
    """The topology above. servers[address][port]."""

    def __init__(self, lab, nat, **options):
        self.internet = lab.network()
        self.hosts = [lab.host(f"server-{i}", self.internet) for i in (1, 2)]
        self.router = lab.router("router", self.internet, nat=nat, **options)
        self.host = lab.host("host", self.router.inside)
        self.servers = [[udp(h, port) for port in PORTS] for h in self.hosts]
        self.server = self.servers[0][0]

    def client(self, port=0, host=None):
        return udp(host or self.host, port)

    def is_let_in(self, client, server, mapped):
        """Whether a datagram from this server gets through to the client; else the router dropped it."""
        dropped = self.dropped()
        server.sendto(b"!", mapped)
        outcome = wait_until(lambda: arrived(client) or self.dropped() > dropped, 5,
                             "a datagram arrives or is dropped")
        return outcome is not True

    def dropped(self):
        counts = self.router.counts()
        return counts["filtered"] + counts["unmapped"]

    def mapping_type(self):
        """As RFC 5780 (4.3) finds it."""
        client = self.client()
        first, second, third = (ask(client, s) for s in (self.servers[0][0], *self.servers[1]))
        return "eim" if first == second else "adm" if second == third else "apdm"

    def filtering_type(self):
        """As RFC 5780 (4.4) finds it."""
        client = self.client()
        client.sendto(b"?", self.server.getsockname())
        mapped = self.server.recvfrom(16)[1]
        if self.is_let_in(client, self.servers[1][1], mapped):
            return "eif"
        return "adf" if self.is_let_in(client, self.servers[0][1], mapped) else "apdf"


@pytest.mark.parametrize("nat", USERSPACE_NAT_TYPES)
def test_a_nat_is_what_rfc_5780_finds(lab, nat):
    net = Net(lab, nat)

    assert f"{net.mapping_type()}-{net.filtering_type()}" == nat
    client = net.client()
    ask(client, net.server)
    assert client.recvfrom(16)[1] == net.server.getsockname(), "the one that was asked"


@pytest.mark.parametrize("hairpin", [None, "internal", "external"])
def test_a_hairpin_is_as_asked_for(lab, hairpin):
    net = Net(lab, "eim-eif", hairpin=hairpin)
    client, other = net.client(5000), net.client(6000, lab.host("other", net.router.inside))
    mapped, others = ask(client, net.server), ask(other, net.server)
    assert client.recv(16)

    other.sendto(b"!", mapped)
    client.settimeout(5 if hairpin else NEVER)
    source = {"internal": other.getsockname(), "external": others}
    if hairpin:
        assert client.recvfrom(16)[1] == source[hairpin]
    else:
        with pytest.raises(TimeoutError):
            client.recvfrom(16)


def test_a_filter_lags_behind_the_mapping(lab):
    net = Net(lab, "eim-apdf", lag_ms=300)
    client = net.client()
    begin = time.monotonic()
    client.sendto(b"?", net.server.getsockname())
    mapped = net.server.recvfrom(16)[1]

    def is_through():
        net.server.sendto(b"!", mapped)
        return arrived(client)
    wait_until(is_through, 5, "the filter is open")
    assert time.monotonic() - begin >= 0.3


def test_a_mapping_ends_in_its_time_whatever_comes_in(lab):
    net = Net(lab, "apdm-eif", timeout_s=0.5, refresh="outbound")
    client = net.client()
    mapped = ask(client, net.server)

    def is_gone():
        net.servers[1][0].sendto(b"!", mapped)
        return net.router.counts()["mappings"] == 0
    wait_until(is_gone, 10, "the mapping is gone")
    assert ask(client, net.server) != mapped


def test_what_comes_in_keeps_a_mapping_if_it_may(lab):
    net = Net(lab, "eim-eif", timeout_s=3600)
    mapped = ask(net.client(), net.server)
    made = net.router.counts()["sessions_made"]

    net.servers[1][0].sendto(b"!", mapped)
    wait_until(lambda: net.router.counts()["sessions_made"] == made + 1, 5, "who was let in is known")
    assert net.router.counts()["mappings"] == 1


def test_ports_come_as_asked_for(lab):
    """
    preserve --+
    step ------+-- internet --- server
    range -----+
    """
    internet = lab.network()
    server = udp(lab.host("server", internet), 3478)

    def ports(name, **options):
        router = lab.router(name, internet, nat="apdm-apdf", **options)
        host = lab.host(f"{name}-host", router.inside)
        return [ask(udp(host, 5000 + i), server)[1] for i in range(4)]

    assert ports("preserve", ports="preserve") == [5000, 5001, 5002, 5003]
    stepped = ports("step", ports="step:2", port_range=(2000, 60000))
    assert all((b - a - 2) % 58001 == 0 for a, b in zip(stepped, stepped[1:]))
    assert sorted(ports("range", port_range=(2000, 2003))) == [2000, 2001, 2002, 2003]


@pytest.mark.parametrize("pool", ["paired", "arbitrary"])
def test_a_pool_of_addresses_is_used_as_asked_for(lab, pool):
    net = Net(lab, "eim-apdf", addresses=2, pool=pool)
    seen = [ask(net.client(), net.server)[0] for _ in range(4)]

    assert set(seen) == (set(net.router.addresses) if pool == "arbitrary" else {seen[0]})
    if pool == "paired":
        assert ask(net.client(host=lab.host("other", net.router.inside)), net.server)[0] not in seen


def test_a_search_is_counted_and_bounded(lab):
    net = Net(lab, "apdm-apdf", mappings=50)
    client = net.client()

    for port in range(10000, 10080):
        client.sendto(b"?", (net.hosts[0].ip, port))
    counts = wait_until(lambda: (c := net.router.counts())["full"] == 30 and c, 5, "30 are refused")

    assert (counts["mappings"], counts["mappings_peak"], counts["sessions"]) == (50, 50, 50)


def test_an_independent_mapping_costs_a_session_for_each_remote(lab):
    net = Net(lab, "eim-apdf")
    client = net.client()

    for port in range(10000, 10080):
        client.sendto(b"?", (net.hosts[0].ip, port))
    counts = wait_until(lambda: (c := net.router.counts())["sessions"] == 80 and c, 5, "80 sessions")

    assert counts["mappings_peak"] == 1


@pytest.mark.parametrize("nat", ["restricted", "port-restricted", "eim-eif"])
def test_a_reboot_loses_all_mappings_and_may_change_the_address(lab, nat):
    net = Net(lab, nat)
    client = net.client(5000)
    mapped = ask(client, net.server)
    assert client.recv(16)

    net.router.reboot("198.51.100.99")
    assert net.router.counts()["sessions"] == 0
    net.server.sendto(b"!", ("198.51.100.99", mapped[1]))
    client.settimeout(NEVER)
    with pytest.raises(TimeoutError):
        client.recvfrom(16)
    client.settimeout(5)
    assert ask(client, net.server)[0] == net.router.ip == "198.51.100.99"
    assert client.recvfrom(16)[1] == net.server.getsockname()


def test_sighup_is_a_reboot(lab):
    net = Net(lab, "apdm-apdf")
    client = net.client()
    mapped = ask(client, net.server)

    net.router.forget()
    wait_until(lambda: net.router.counts()["mappings"] == 0, 5, "no mapping is left")
    assert ask(client, net.server) != mapped


def listen(host, port, family=socket.AF_INET):
    s = host.socket(family, socket.SOCK_STREAM)
    s.bind((host.ip if family == socket.AF_INET else host.ip6, port))
    s.listen()
    s.settimeout(5)
    return s


def connect(host, listener, timeout=5.0):
    s = host.socket(listener.family, socket.SOCK_STREAM)
    s.settimeout(timeout)
    s.connect(listener.getsockname()[:2])
    return s


@pytest.mark.parametrize("nat", [None, "port-restricted", "eim-eif"])
def test_nothing_but_443_can_be_left(lab, nat):
    net = Net(lab, nat)
    if nat is None:
        for host in net.hosts:
            host.run(["ip", "route", "add", "default", "via", net.router.ip])
    https, http = listen(net.hosts[0], 443), listen(net.hosts[0], 80)
    net.router.block_all_but_443()

    with connect(net.host, https) as stream:
        stream.sendall(b"hello")
        served, seen = https.accept()
        assert served.recv(16) == b"hello" and seen[0] == (net.router.ip if nat else net.host.ip)
        served.sendall(b"you too")
        assert stream.recv(16) == b"you too"
    with pytest.raises(TimeoutError):
        connect(net.host, http, NEVER)
    net.client().sendto(b"?", net.server.getsockname())
    assert net.host.run(["ping", "-c1", "-W0.3", net.hosts[0].ip], check=False).returncode == 1
    assert arrived(net.server) is None

    net.router.unblock_all()
    ask(net.client(), net.server)
    connect(net.host, http).close()


def test_all_but_udp_passes(lab):
    net = Net(lab, "apdm-apdf")
    http = listen(net.hosts[0], 80)
    net.router.block_udp()

    net.client().sendto(b"?", net.server.getsockname())
    with connect(net.host, http) as stream:
        served, _ = http.accept()
        stream.sendall(b"upload")
        assert served.recv(16) == b"upload"
        size = 1 << 20
        sending = threading.Thread(target=served.sendall, args=[bytes(size)])
        sending.start()
        got = 0
        while got < size:
            got += len(stream.recv(1 << 16))
        sending.join()
    net.host.run(["ping", "-c1", "-W5", net.hosts[0].ip])
    assert arrived(net.server) is None

    net.router.unblock_udp()
    ask(net.client(), net.server)


def test_large_datagrams_and_errors_pass_a_nat(lab):
    net = Net(lab, "eim-apdf")
    client = net.client()
    payload = bytes(range(256)) * 20

    ask(client, net.server, payload)
    assert client.recv(65535) == payload, "in pieces, both ways"

    client.connect((net.hosts[0].ip, 9999))  # nobody listens
    client.send(b"?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(16)


def test_who_sends_too_large_a_packet_is_told_through_a_nat(lab):
    """
    host --- router [NAT] --- internet --- middle --- far (MTU 1280) --- end
    """
    net = Net(lab, "eim-apdf")
    far = lab.network("far", "203.0.113.0/24", mtu=1280)
    middle, end = lab.host("middle", net.internet), lab.host("end", far)
    middle.attach(far, "203.0.113.9")
    middle.sysctl("net.ipv4.ip_forward", 1)
    end.run(["ip", "route", "add", "default", "via", "203.0.113.9"])
    net.router.run(["ip", "route", "add", "203.0.113.0/24", "via", middle.ip])
    client, server = net.client(), udp(end, 4000)
    client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    client.connect(server.getsockname())

    client.send(bytes(1300))
    wait_until(lambda: client.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1280, 5, "the sender knows the MTU")
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
    client.send(bytes(1252))
    assert server.recvfrom(2000)[1][0] == net.router.ip


def test_a_router_answers_pings_on_both_sides(lab):
    net = Net(lab, "apdm-adf")
    net.hosts[0].run(["ping", "-c1", "-W5", net.router.ip])
    net.host.run(["ping", "-c1", "-W5", net.router.ip])
    net.host.run(["ping", "-c1", "-W5", net.router.inside.gateway])


@pytest.mark.parametrize("outer, inner, mapping", [
    ("eim-eif", "eim-eif", "eim"), ("eim-eif", "adm-adf", "adm"), ("apdm-apdf", "port-restricted", "apdm")])
def test_behind_two_nats_the_worse_mapping_holds(lab, outer, inner, mapping):
    """
    server-1, -2 --- internet --- carrier [NAT] --- home [NAT] --- host
    """
    net = Net(lab, outer)
    home = lab.router("home", net.router.inside, nat=inner)
    net.host = lab.host("guest", home.inside)

    assert net.mapping_type() == mapping
    client = net.client()
    assert ask(client, net.server)[0] == net.router.ip
    assert client.recvfrom(16)[1] == net.server.getsockname()


def test_two_homes_meet_by_their_carriers_hairpin(lab):
    """
                                   +--- home-a [eim-apdf] --- alice
    server --- internet --- carrier [eim-apdf, hairpin]
                                   +--- home-b [eim-apdf] --- bob
    """
    net = Net(lab, "eim-apdf", hairpin="external")
    homes = [lab.router(f"home-{x}", net.router.inside, nat="eim-apdf") for x in "ab"]
    alice, bob = (net.client(host=lab.host(name, home.inside)) for name, home in zip(("alice", "bob"), homes))
    seen = {s: ask(s, net.server) for s in (alice, bob)}
    assert [s.recvfrom(16)[1] for s in (alice, bob)] == [net.server.getsockname()] * 2

    def ping(sender, receiver):
        sender.sendto(b"!", seen[receiver])
        return arrived(receiver)
    ping(alice, bob)
    assert wait_until(lambda: ping(bob, alice), 5, "alice has asked") == seen[bob]
    assert wait_until(lambda: ping(alice, bob), 5, "bob has asked") == seen[alice]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_firewall_lets_in_replies_only(lab, family):
    """
    server --- internet --- router [firewall, no NAT] --- host        IPv4 and IPv6
    """
    internet = lab.network(v6="2001:db8::/64")
    server_host = lab.host("server", internet)
    router = lab.router("router", internet, firewall=True, inside6="2001:db8:1::/64")
    host = lab.host("host", router.inside)
    server_host.run(["ip", "route", "add", "default", "via", router.ip])
    server, other = (udp(server_host, port, family=family) for port in (4000, 4001))
    client = udp(host, 5000, family=family)
    inside = client.getsockname()[:2]

    server.sendto(b"unasked", inside)
    client.sendto(b"?", server.getsockname()[:2])
    assert server.recvfrom(16)[1][:2] == inside
    other.sendto(b"unasked", inside)
    server.sendto(b"reply", inside)
    assert client.recv(16) == b"reply"
    client.settimeout(NEVER)
    with pytest.raises(TimeoutError):
        client.recv(16)


def test_ipv6_passes_from_behind_one_nat_to_behind_another(lab):
    """
    alice --- home [eim-eif] --- carrier [apdm-apdf] --- internet --- office [eim-apdf] --- bob
    """
    internet = lab.network(v6="2001:db8::/64")
    carrier = lab.router("carrier", internet, nat="apdm-apdf", inside6="2001:db8:1::/64")
    home = lab.router("home", carrier.inside, nat="eim-eif", inside6="2001:db8:2::/64")
    office = lab.router("office", internet, nat="eim-apdf", inside6="2001:db8:3::/64")
    alice, bob = (udp(lab.host(name, router.inside), 5000, family=socket.AF_INET6)
                  for name, router in (("alice", home), ("bob", office)))

    def hello(sender, receiver):
        sender.sendto(b"hello", receiver.getsockname()[:2])
        return arrived(receiver)
    hello(alice, bob)
    came = wait_until(lambda: hello(bob, alice), 5, "alice's question has opened her firewalls to bob")
    assert came[:2] == bob.getsockname()[:2]
    came = wait_until(lambda: hello(alice, bob), 5, "and bob's has opened his")
    assert came[:2] == alice.getsockname()[:2]


def test_one_side_alone_may_have_ipv6(lab):
    internet = lab.network(v6="2001:db8::/64")
    with_v6 = lab.router("with", internet, nat="apdm-apdf", inside6="2001:db8:1::/64")
    without = lab.router("without", internet, nat="apdm-apdf")
    server_host = lab.host("server", internet)
    for router, has_v6 in ((with_v6, True), (without, False)):
        host = lab.host(f"host-{router.name}", router.inside)
        ask(udp(host), udp(server_host, 4000 + has_v6))
        assert bool(host.ip6) == has_v6
        if has_v6:
            server = udp(server_host, 4000, family=socket.AF_INET6)
            assert ask(udp(host, family=socket.AF_INET6), server)[0] == host.ip6


def test_options_of_ours_are_refused_by_linuxs_nat(lab):
    internet = lab.network()
    with pytest.raises(ValueError):
        lab.router("a", internet, nat="symmetric", lag_ms=10)
    with pytest.raises(ValueError):
        lab.router("b", internet, nat="eim-xdf")


def test_a_nat_ends_with_its_lab():
    with Lab("ends") as lab:
        Net(lab, "eim-eif")
        box = lab.programs[0]
    assert not box.running and box.process.returncode == 0
    assert lab.mark not in [mark for _, mark in _marked()]
