"""Peers on one link find each other when control, relay and router are gone (docs/PROTOCOL-lan.md).

    control   relay
       |        |
    ---+--------+--- internet --- home [eim-apdf, IPv6 with a firewall] --- bridge --+--- alice
                                                                                     +--- bob
                                                                                     +--- mallory, no member
"""

import contextlib
import ipaddress
import socket
import struct
import threading
import time

import pytest

from lab import wait_until
from overlay import Control, Node
from traffic import Echo, Pulse

GROUP, GROUP6, PORT = "239.255.112.50", "ff12::7032:6c", 27032
FOUND = 5.0  # seconds from the start of both
BURST = 6.0  # longer than the three calls after a change take


class Link:
    """alice and bob are members and have the map; mallory listens."""

    def __init__(self, lab, build):
        internet = lab.network("internet", v6="2001:db8::/64")
        self.control = Control(build, lab.host("control", internet)).start()
        self.relay = Node(build, lab.host("relay", internet), public=True).start()
        self.home = lab.router("home", internet, nat="eim-apdf", inside6="2001:db8:1::/64")
        self.alice, self.bob = self.nodes = [Node(build, lab.host(name, self.home.inside)).start()
                                             for name in ("alice", "bob")]
        self.mallory = lab.host("mallory", self.home.inside)
        for node in (self.relay, *self.nodes):
            node.join(self.control.link())
        for node, other in (self.nodes, self.nodes[::-1]):
            node.wait_for_peer(other.name)
            node.wait_for_relay()
            wait_until(lambda: other.name in node.cached_peers(), 10, "the map is kept")

    def cut(self):
        """No control, no relay, no router."""
        self.control.kill()
        self.relay.kill()
        self.home.unplug("eth1")

    def restart(self):
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            node.start()

    def listen(self):
        """A socket of mallory's that hears calls."""
        s = self.mallory.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", PORT))
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                     socket.inet_aton(GROUP) + socket.inet_aton(self.mallory.ip))
        s.settimeout(10)
        return s

    def speaker(self, *kind):
        """A socket of mallory's whose datagrams to the group go to the link."""
        s = self.mallory.socket(*kind)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self.mallory.ip))
        return s


@pytest.fixture
def link(lab, build):
    return Link(lab, build)


def calls(heard, seconds):
    """Of that long, from now; and whatever came before is gone."""
    heard.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            heard.recv(2000)
    end, n = time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        heard.settimeout(left)
        with contextlib.suppress(TimeoutError):
            n += heard.recv(2000)[:4] == b"\xd2\x70\x32\x6c"
    return n


def drops(node):
    return {name: int(n) for name, n in node.status()["drops"].items() if name.startswith("lan ")}


@pytest.mark.parametrize("family", [4, 6])
def test_two_on_one_link_find_each_other_though_both_were_restarted_without_control(link, measured, family):
    link.cut()
    if family == 6:
        for node in link.nodes:
            node.host._commands([f"addr del {node.host.ip}/24 dev eth0"])
    link.restart()

    with Echo(link.bob.host), Pulse(link.alice.host, link.bob.ip) as pulse:
        measured(f"first answer, IPv{family}, no control", pulse.first_answer(20), FOUND)
        link.alice.wait_for_path("bob", "direct")
        link.bob.wait_for_path("alice", "direct")
        endpoint = link.alice.peer("bob")["endpoint"]
        assert endpoint.startswith("[") == (family == 6)


def test_control_has_the_last_word_when_it_is_back(link):
    link.cut()
    link.restart()
    with Echo(link.bob.host), Pulse(link.alice.host, link.bob.ip) as pulse:
        pulse.first_answer(20)
        link.home.plug("eth1")
        link.control.start()
        link.relay.start()
        for node in link.nodes:
            node.wait_for_control(60)
        pulse.keeps_going(100)
        link.bob.program.signal(10)  # SIGUSR1: a new session, whose key control tells
        link.bob.wait_for_control(30)
        pulse.keeps_going(100, 20)
        link.alice.wait_for_path("bob", "direct")


def listens(node):
    return bool(node.host.run(["ss", "-Hlun", f"sport = :{PORT}"]).stdout)


def test_who_has_it_switched_off_is_not_on_the_port(lab, build):
    internet = lab.network()
    control = Control(build, lab.host("control", internet)).start()
    off, on = [Node(build, lab.host(name, internet), config=config).start()
               for name, config in (("alice", "lan_discovery = no\n"), ("bob", ""))]
    for node in (off, on):
        node.join(control.link())
        node.wait_for_control()
    assert listens(on) and not listens(off)
    assert not drops(off) and drops(on)


def test_nobody_calls_while_control_is_there(link):
    heard = link.listen()
    link.restart()
    with Echo(link.bob.host), Pulse(link.alice.host, link.bob.ip) as pulse:
        for node in link.nodes:
            node.wait_for_control()
        pulse.first_answer()
        link.alice.wait_for_path("bob", "direct")
        assert calls(heard, BURST) == 0

        link.control.kill()
        heard.settimeout(15)
        assert heard.recv(2000)[:4] == b"\xd2\x70\x32\x6c"


def keep_sending(mallory, link, stop):
    """500 calls of a stranger each second."""
    call = struct.pack("!4sBBHQ32sQ", b"\xd2\x70\x32\x6c", 1, 8, 7000, 5, b"\x09" * 32, 0) + bytes(8 * 16)
    while not stop.wait(0.02):
        for _ in range(10):
            mallory.sendto(call, (GROUP, PORT))


def spoofed(source, target, port, payload):
    """An IPv4 packet with a source that is not the sender's."""
    udp = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 1, 17, 0,
                       ipaddress.ip_address(source).packed, ipaddress.ip_address(target).packed)
    return head + udp


def test_what_strangers_say_and_repeat_is_counted_and_changes_nothing(link):
    heard = link.listen()
    link.cut()
    link.restart()
    with Echo(link.bob.host), Pulse(link.alice.host, link.bob.ip) as pulse:
        pulse.first_answer(20)
        for node, other in (link.nodes, link.nodes[::-1]):
            node.wait_for_path(other.name, "direct")
        call, sender = heard.recvfrom(2000)
        victim = link.bob if sender[0] == link.alice.host.ip else link.alice
        peer = "alice" if victim is link.bob else "bob"
        wait_until(lambda: calls(heard, BURST) == 0, 60, "all calls of the start are made")
        before, endpoint = drops(victim), victim.peer(peer)["endpoint"]
        mallory = link.speaker()
        raw = link.speaker(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        to = (GROUP, PORT)

        mallory.sendto(b"hello", to)                                        # malformed
        mallory.sendto(call[:5] + b"\xff" + call[6:], to)                   # … and more tags than there are
        mallory.sendto(call, to)                                            # from another address
        mallory.sendto(call[:16] + bytes([call[16] ^ 1]) + call[17:], to)   # another session key
        for _ in range(3):                                                  # the same, word by word
            raw.sendto(spoofed(sender[0], GROUP, PORT, call), (GROUP, 0))

        def gained(name):
            return drops(victim)[name] - before[name]
        wait_until(lambda: gained("lan malformed") == 2, 5, "malformed ones are counted")
        wait_until(lambda: gained("lan of a stranger") == 2, 5, "strangers are counted")
        wait_until(lambda: gained("lan repeated") == 3, 5, "repetitions are counted")
        for _ in range(2000):
            mallory.sendto(call, to)
        wait_until(lambda: drops(victim)["lan too often"] > 0, 5, "a flood is not looked at")
        pulse.keeps_going(50)
        assert (victim.peer(peer)["path"], victim.peer(peer)["endpoint"]) == ("direct", endpoint)


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_sent_to_one_node_alone_is_no_call(link, family):
    if family == 6:
        mallory, address, group = link.mallory.socket(socket.AF_INET6), link.alice.host.ip6, GROUP6
    else:
        mallory, address, group = link.speaker(), link.alice.host.ip, GROUP
    before = drops(link.alice)["lan malformed"]
    for _ in range(100):
        mallory.sendto(b"hello", (address, PORT))
    mallory.sendto(b"hello", (group, PORT))  # the last that arrives
    wait_until(lambda: drops(link.alice)["lan malformed"] > before, 5, "what is sent to the group is seen")
    assert drops(link.alice)["lan malformed"] == before + 1


def test_who_floods_the_link_does_not_keep_two_from_finding_each_other(link):
    link.cut()
    mallory, stop = link.speaker(), threading.Event()
    flood = threading.Thread(target=lambda: keep_sending(mallory, link, stop))
    flood.start()
    try:
        link.restart()
        with Echo(link.bob.host), Pulse(link.alice.host, link.bob.ip) as pulse:
            pulse.first_answer(30)
            link.alice.wait_for_path("bob", "direct")
        wait_until(lambda: drops(link.alice)["lan too often"] > 0, 10, "the flood is not looked at")
    finally:
        stop.set()
        flood.join()


def test_a_change_that_leaves_the_addresses_as_they_are_makes_nobody_call(link):
    heard = link.listen()
    link.cut()
    wait_until(lambda: calls(heard, BURST) == 0, 60, "all calls of a node without control are made")
    for i in range(5):
        link.alice.host._commands([f"route add 10.99.{i}.0/24 dev eth0"])
    assert calls(heard, 2) == 0
    link.alice.host._commands([f"addr add {ipaddress.ip_address(link.alice.host.ip) + 100}/24 dev eth0"])
    wait_until(lambda: calls(heard, BURST) > 0, 20, "a new address is one to call from")
