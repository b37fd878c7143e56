"""p2pctl netcheck tells of each NAT of the lab exactly what it was asked to be.

    control   relay-1   relay-2 (public nodes: STUN at two ports of one address each)
       |         |         |
    ---+---------+---------+--- internet ---+---- … one router of each of the nine types
                                            |
                                    router [eim-eif] --- node
"""

import json
import socket
import struct
import threading

import pytest

from lab import USERSPACE_NAT_TYPES, wait_until
from overlay import Control, Node

DEPENDENCE = {"eim": "endpoint-independent", "adm": "address-dependent", "apdm": "address-and-port-dependent",
              "eif": "endpoint-independent", "adf": "address-dependent", "apdf": "address-and-port-dependent"}
COOKIE = 0x2112A442


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
