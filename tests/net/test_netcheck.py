"""p2pctl netcheck tells of each NAT of the lab exactly what it was asked to be.

    control   relay-1   relay-2 (public nodes: STUN at two ports of one address each)
       |         |         |
    ---+---------+---------+--- internet ---+---- … one router of each of the nine types
                                            |
                                    router [eim-eif] --- node
"""

import json
import re
import socket
import struct
import threading

import pytest

from lab import TIMEOUT_SCALE, USERSPACE_NAT_TYPES, wait_until
from overlay import Control, Node
from test_mtu import Far, fits
from traffic import Echo, Pulse

DEPENDENCE = {"eim": "endpoint-independent", "adm": "address-dependent", "apdm": "address-and-port-dependent",
              "eif": "endpoint-independent", "adf": "address-dependent", "apdf": "address-and-port-dependent"}
COOKIE = 0x2112A442
RELAYED = 16  # bytes before each datagram that goes by relay


class World:
    def __init__(self, lab, build, relays=2):
        self.lab, self.build = lab, build
        self.internet = lab.network("internet")
        self.control = Control(build, lab.host("control", self.internet)).start()
        self.relays = [self.join(lab.host(f"relay-{i + 1}", self.internet), public=True) for i in range(relays)]

    def join(self, host, **options):
        node = Node(self.build, host, **options).start()
        node.join(self.control.link())
        return node

    def behind(self, name, **options):
        router = self.lab.router(name, self.internet, **options)
        node = self.join(self.lab.host(f"at-{name}", router.inside))
        node.wait_for(lambda s: len(s["relays"]) == len(self.relays), "knows the relays", 15)
        return node


def netcheck(node):
    done = node.ctl("netcheck", "--json")
    return json.loads(done.stdout)


def expected(nat, hairpin, ports):
    mapping, filtering = nat.split("-")
    shows_hairpin = mapping == "eim" or filtering == "eif"  # else the filter drops what comes back
    # "internal": a packet from the machine's own address, which Linux does not take; netcheck says "no" to that.
    always_same = ports == "preserve" and mapping == "eim"
    return {"mapping": DEPENDENCE[mapping], "filtering": DEPENDENCE[filtering],
            "hairpin": (hairpin == "external") if shows_hairpin else None,
            "port_preservation": ports == "preserve",
            "ports": "steps" if ports.startswith("step") else "same" if always_same else "random",
            "port_step": int(ports[5:]) if ports.startswith("step") else None}


@pytest.mark.parametrize("hairpin, ports", [(None, "random"), ("external", "preserve"), ("internal", "step:2")])
def test_netcheck_says_exactly_what_the_router_does(lab, build, hairpin, ports):
    world = World(lab, build)
    found, wanted = {}, {}
    nodes = {nat: world.behind(nat, nat=nat, hairpin=hairpin, ports=ports) for nat in USERSPACE_NAT_TYPES}

    for nat, node in nodes.items():
        told = netcheck(node)["status"]["nat_behaviour"]
        wanted[nat] = expected(nat, hairpin, ports)
        found[nat] = {key: told[key] for key in wanted[nat]}
        assert told["age_ms"] is not None and told["outside"] == node.host.interfaces[0][1].router.ip
    assert found == wanted


def test_netcheck_tells_people_and_what_it_means(lab, build):
    world = World(lab, build)
    text = world.behind("home", nat="eim-apdf").ctl("netcheck").stdout

    assert "mapping     endpoint-independent: " in text
    assert "filtering   address-and-port-dependent: " in text
    assert "hairpin     no\n" in text and "ports       preserved: " in text
    assert "\nEvery peer can be reached directly, one behind a hard and strict NAT after a search" in text


def test_with_one_public_node_netcheck_says_what_cannot_be_known(lab, build):
    world = World(lab, build, relays=1)
    told = netcheck(world.behind("home", nat="eim-apdf"))["status"]["nat_behaviour"]

    assert told["mapping"] is None and told["unknown"]["mapping"] == "needs a second public node"
    assert told["filtering"] == "address-and-port-dependent"


def answers(tx, mapped, kind=0x0101):
    """A STUN success with this id, as who is not asked could send it."""
    ip = struct.unpack("!I", socket.inet_aton(mapped[0]))[0] ^ COOKIE
    value = struct.pack("!BBHI", 0, 1, mapped[1] ^ (COOKIE >> 16), ip)
    return struct.pack("!HHI", kind, 4 + len(value), COOKIE) + tx + struct.pack("!HH", 0x0020, len(value)) + value


class Forger(threading.Thread):
    """Sees each question of the node and answers it at once: with its id as a stranger, and with another id as the
    server, from either of its ports. What the NAT's filter keeps from the node has no other answer than these."""

    def __init__(self, node, stranger):
        super().__init__(daemon=True)
        self.node, self.stopping, self.asked = node, False, 0
        self.seen = node.host.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.seen.settimeout(0.1)
        self.stranger = stranger.socket()
        self.stranger.bind((stranger.ip, 3478))
        self.raw = stranger.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def run(self):
        while not self.stopping:
            try:
                packet = self.seen.recv(2048)
            except TimeoutError:
                continue
            if packet[0] != 0x45 or packet[9] != socket.IPPROTO_UDP or packet[12:16] != socket.inet_aton(self.node.host.ip):
                continue
            (port, server_port), stun = struct.unpack("!HH", packet[20:24]), packet[28:]
            if len(stun) < 20 or stun[:2] != b"\0\1" or stun[4:8] != struct.pack("!I", COOKIE):
                continue
            self.asked += 1
            for other_port in (server_port, server_port ^ 3478 ^ 3479):
                self.spoof(packet[16:20], other_port, port, answers(b"\1" * 12, ("192.0.2.1", 7)))
            self.stranger.sendto(answers(stun[8:20], ("192.0.2.1", 7)), (self.node.host.ip, port))

    def spoof(self, server_ip, server_port, port, stun):
        node_ip = socket.inet_aton(self.node.host.ip)
        udp = struct.pack("!HHHH", server_port, port, 8 + len(stun), 0) + stun
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + server_ip + node_ip
        self.raw.sendto(ip + udp, (self.node.host.ip, 0))

    def end(self):
        self.stopping = True
        self.join()
        for s in (self.seen, self.stranger, self.raw):
            s.close()


def test_forged_stun_answers_change_nothing(lab, build):
    """A stranger in the node's own network answers each question, with its id or from the server's address."""
    world = World(lab, build)
    node = world.behind("home", nat="apdm-apdf")
    forger = Forger(node, lab.host("stranger", node.host.interfaces[0][1]))
    before = node.dropped()
    forger.start()
    told = netcheck(node)["status"]
    own = next(e["endpoint"] for e in node.status()["endpoints"] if e["kind"] == "local").rpartition(":")[2]
    for _ in range(100):
        forger.stranger.sendto(answers(b"\1" * 12, ("192.0.2.1", 7)), (node.host.ip, int(own)))
    wait_until(lambda: node.dropped() >= before + 100, 5, "those to the node itself are counted")
    forger.end()

    assert forger.asked >= 20, "the questions of a run were seen"
    assert not any(e["endpoint"].startswith("192.0.2.1:") for e in told["endpoints"])
    assert told["nat_behaviour"]["mapping"] == DEPENDENCE["apdm"]
    assert told["nat_behaviour"]["filtering"] == DEPENDENCE["apdf"]
    assert told["nat_behaviour"]["outside"] == node.host.interfaces[0][1].router.ip


# ---- the numbers that it tells are true --------------------------------------------------------------

AWAY_MS = 30  # each way, of a relay that is far


def round_trip_ms(host, ip):
    """As the kernel's own ping finds it: the middle one of seven."""
    lines = host.run(["ping", "-c7", "-i0.1", "-W5", ip]).stdout
    times = sorted(float(t) for t in re.findall(r"time=([0-9.]+) ms", lines))
    return times[len(times) // 2]


@pytest.mark.alone
def test_netcheck_tells_how_far_each_relay_is_by_udp_and_by_tls(lab, build):
    """relay-1 is 60 ms farther away, there and back. at-office has no UDP: what it is told is of TLS, and that
    decides on its home, which was a guess."""
    world = World(lab, build)
    far, near = world.relays
    far.host.delay(AWAY_MS)
    home = world.behind("home", nat="eim-apdf")
    office = lab.router("office", world.internet, nat="port-restricted")
    office.block_udp()
    office = world.join(lab.host("at-office", office.inside))

    def relays_of(node, key):
        """Once each was measured."""
        found = {}

        def are_told():
            found.update({r["name"]: r for r in netcheck(node)["status"]["relays"]})
            return all(found.get(relay.name, {}).get(key) for relay in world.relays)
        wait_until(are_told, 20, lambda: f"{key} of each relay: {found}", 0.2)
        return found

    by_udp, by_tls = relays_of(home, "latency_us"), relays_of(office, "latency_us")
    for relay in world.relays:
        for node, told in ((home, by_udp), (office, by_tls)):
            truth, said = round_trip_ms(node.host, relay.host.ip), told[relay.name]["latency_us"] / 1000
            assert abs(said - truth) < 15 * TIMEOUT_SCALE, f"{node.name} to {relay.name}: {said} ms, ping says {truth}"
        assert by_tls[relay.name]["udp_latency_us"] is None
    assert by_udp["relay-1"]["latency_us"] - by_udp["relay-2"]["latency_us"] > AWAY_MS * 1000
    text = home.ctl("netcheck").stdout
    assert 0 < text.index("relay-2: ") < text.index("relay-1: "), "the nearest is named first"
    for node in (home, office):
        node.wait_for_relay(near.name, timeout=30)


@pytest.mark.parametrize("path", ["direct", "relay"])
def test_netcheck_tells_what_mtu_the_way_to_the_internet_has(lab, build, path):
    """alice's own link takes 9000 bytes; that to bob (and for him to the relay) takes 1400, of which nobody is told."""
    net = Far(lab, build, 1400)
    if path == "relay":
        net.bob.host.nft("table inet relayed { chain out { type filter hook output priority 0;\n"
                         f"ip daddr {net.alice.host.ip} meta l4proto udp drop\n}}\n}}")
    net.join()

    def mtu(node, other):
        told = json.loads(node.ctl("netcheck", "--json").stdout)["status"]
        peer = next(p for p in told["peers"] if p["name"] == other)
        return peer["mtu"] if peer["path"] == path else None
    wanted = fits(1400, 4) if path == "direct" else (1400 - 28 - RELAYED - 32) // 16 * 16
    with Echo(net.bob.host), Pulse(net.alice.host, net.bob.ip) as pulse:
        pulse.first_answer()
        for node, other in ((net.alice, "bob"), (net.bob, "alice")):
            wait_until(lambda: mtu(node, other) == wanted, 30, lambda: f"{node.name} is told {wanted}: {mtu(node, other)}", 0.3)
    assert f"path mtu    {wanted} inside\n" in net.alice.ctl("netcheck").stdout
