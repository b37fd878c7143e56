"""The front door by IPv6: all that is served by IPv4, and what a source is there.

      control    relay (public node: relay, front door and webgw on 443)    outside: no IPv4
         |          |                                                          |
      ---+----------+----- internet 198.51.100.0/24, 2001:db8::/32 ------------+----------------+
                                                                                                |
                                                                            home [port-restricted, IPv4 alone]
                                                                                                |
                                                                                              alice: servers

tests/net/test_front_door.py and test_front_door_quic.py have what is served, test_one_port.py what is the node's own.
"""

import hashlib
import socket
import struct

import pytest

import web
from lab import LabError, wait_until
from overlay import Node, Overlay
from test_front_door_quic import Server, fetch
from test_one_port import OwnName
from webgw import Agent

PAGE = "hello from alice, who has no IPv6\n"
SECRET = b"0" * 32
INTERNET = ("198.51.100.0/24", "2001:db8::/32")
PLACES = 8  # of one source
ONLY_443 = """
table inet corporate {{
chain out {{
type filter hook output priority 0; policy drop;
oif "lo" accept
meta nfproto ipv6 meta l4proto ipv6-icmp accept
ip daddr {control} accept
ip6 daddr {relay} tcp dport 443 accept
}}
}}
"""


@pytest.fixture
def town(lab, build):
    overlay = Overlay(lab, build, members=("alice",), internet=INTERNET)
    relay = overlay.relay
    overlay.join_with_front_door(f"""address = {relay.host.ip6}
[frontdoor]
udp_ports = 5353
max_visitors_source = {PLACES}
host = www.example.com 127.0.0.1:1

[webgw]
host = agent.example.com {hashlib.sha256(SECRET).hexdigest()}
""")
    overlay.outside.run(["ip", "-4", "address", "flush", "dev", "eth0"])
    for host in ("app.demo", "plain.demo"):
        overlay.control.admin("host", "add", "alice", host)
    overlay.control.admin("port", "add", "alice", "udp:5353")
    return overlay


def visit(town, port=80, source=None):
    visitor = town.outside.socket(socket.AF_INET6, socket.SOCK_STREAM)
    visitor.settimeout(20)
    if source:
        visitor.bind((source, 0))
    visitor.connect((town.relay.host.ip6, port))
    return visitor


def visit_if_led(town, host):
    """None: it is reset. Its server does not answer."""
    visitor = visit(town)
    visitor.sendall(request(host))
    visitor.settimeout(0.3)
    try:
        raise LabError(f"heard {visitor.recv(1)!r}")
    except ConnectionResetError:
        return None
    except TimeoutError:
        return visitor


def request(host):
    return f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def expose(town, *words):
    alice = town.nodes["alice"]
    alice.ctl("expose", *words)
    wait_until(lambda: all(one["state"] in ("live", "target down") for one in alice.rpc("node.exposures")["exposures"]), 15,
               lambda: str(alice.rpc("node.exposures")))


def test_http_https_and_quic_are_served_by_ipv6(town):
    alice, door = town.nodes["alice"], town.relay.host.ip6
    site = web.Web(alice, PAGE, address="127.0.0.1")
    town.server = Server(alice)
    expose(town, "http://app.demo", "8080")
    expose(town, "https://app.demo", "8443")

    def curl(url, check=True):
        return web.curl(town.outside, f"[{door}]", site, url, check=check).stdout
    wait_until(lambda: curl("http://app.demo/", check=False) == PAGE, 10, "the door has heard of it")
    assert curl("https://app.demo/") == PAGE
    wait_until(lambda: fetch(town, ip=door) == "", 10, "by QUIC")
    # The visitor's NAT forgets it; alice answers where it is now.
    assert fetch(town, "--change-local-addr=100ms", "--nat-rebinding", "--delay-stream=300ms", ip=door) == ""
    with pytest.raises(LabError, match="(?i)reset|connect error|SSL"):
        curl("https://other.demo/")


def test_the_member_is_told_the_visitors_ipv6_address_by_tcp_and_udp_and_judges_by_it(town):
    alice, network = town.nodes["alice"], "2001:db8::/32"
    listener = alice.host.socket(kind=socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 8080))
    listener.listen(20)
    listener.settimeout(20)
    expose(town, "http://plain.demo", "8080", "--proxy", "v2", "--allow", network)
    datagrams = alice.host.socket()
    datagrams.bind(("127.0.0.1", 5300))
    datagrams.settimeout(20)
    expose(town, "udp:5353", "5300", "--proxy", "v2", "--allow", network)

    def told(head):
        """Version 2: who visits, and where he came to."""
        source, to, source_port, to_port = struct.unpack(">16s16sHH", head[16:52])
        return (socket.inet_ntop(socket.AF_INET6, source), source_port, socket.inet_ntop(socket.AF_INET6, to), to_port)

    visitor = wait_until(lambda: visit_if_led(town, "plain.demo"), 10, "the door has heard of it")
    while True:
        server, _ = listener.accept()
        server.settimeout(20)
        head = server.recv(52, socket.MSG_WAITALL)
        if head:  # else who only looks whether the server is there
            break
    assert head[13] == 0x21 and told(head) == (*visitor.getsockname()[:2], town.relay.host.ip6, 80)
    visitor.close()

    asks = town.outside.socket(socket.AF_INET6)
    asks.connect((town.relay.host.ip6, 5353))  # hears what comes from the address that it asked alone
    asks.settimeout(20)
    asks.send(b"question")
    head, place = datagrams.recvfrom(2000)
    assert head[13] == 0x22 and told(head) == (*asks.getsockname()[:2], town.relay.host.ip6, 5353)
    datagrams.sendto(b"answer", place)
    assert asks.recv(100) == b"answer"

    # Of another prefix than the one that is allowed.
    expose(town, "http://plain.demo", "8080", "--allow", "2001:db8:ffff::/48")
    visitor = visit(town)
    visitor.sendall(request("plain.demo"))
    with pytest.raises(ConnectionResetError):
        raise LabError(f"heard {visitor.recv(1)!r}")
    wait_until(lambda: any(one["not_allowed"] == "1" for one in alice.rpc("node.exposures")["exposures"]), 10, "counted")


def test_a_56_is_one_source_and_has_the_places_of_one(town):
    """However many addresses, and /64 networks, of it one has."""
    def address(network, n):
        text = f"2001:db8:1:{network:x}::{n:x}"
        town.outside.run(["ip", "address", "add", f"{text}/32", "dev", "eth0", "nodad"])
        return text

    def refused():
        return int(town.relay.status()["drops"]["front door: too many of one source"])

    same = [address(network, n) for network in (0, 0xff) for n in (1, 2)]
    other = address(0x100, 1)
    silent = [visit(town, source=same[n % len(same)]) for n in range(PLACES)]
    assert not any(is_let_in(town, source) for source in same)
    wait_until(lambda: refused() == len(same), 5, lambda: f"{refused()} of {len(same)} are counted")
    assert is_let_in(town, other)  # a neighbour has places of its own
    assert is_asked(silent[0])  # and who is there stays
    wait_until(lambda: is_let_in(town, same[-1]), 5, "the place that is free is the source's again")


def is_asked(visitor):
    with visitor:
        visitor.sendall(b"nonsense\r\n\r\n")
        return visitor.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 400"


def is_let_in(town, source):
    try:
        return is_asked(visit(town, source=source))
    except (ConnectionResetError, BrokenPipeError):
        return False


def test_the_nodes_own_name_by_ipv6_leads_to_relay_and_webgw(town, lab):
    # An agent that is not ours, by the node's name and by its address.
    for name in ("relay", None):
        agent = OwnName(town, name, host=town.outside, ip=town.relay.host.ip6)
        assert isinstance(agent.register("agent.example.com", SECRET)["result"], int)
        visitor = visit(town)
        visitor.sendall(request("agent.example.com"))
        link = agent.link(443)
        link.say(b"\x01" + bytes.fromhex(agent.next_visit()["secret"]))
        got = b""
        while len(got) < len(request("agent.example.com")):
            got += link.until_done(lambda: link.tls.read(65536))
        assert got == request("agent.example.com")
        link.say(b"answer")
        assert visitor.recv(6, socket.MSG_WAITALL) == b"answer"
        visitor.close()
        agent.close()

    # A member that has no other way out is the relay's client by the same port.
    carol = Node(town.build, lab.host("carol", town.internet)).start()
    carol.host.nft(ONLY_443.format(control=town.control.host.ip, relay=town.relay.host.ip6))
    carol.join(town.control.link())
    carol.wait_for_relay("relay", 20)
    assert town.relay.rpc("relay.status")["tls_clients"] == 1
