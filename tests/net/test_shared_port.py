"""One TCP port, 443, for the relay and for the hosts of others: by server name and ALPN.

      control    relay (public node: relay and front door on 443)    outside
         |          |                                                   |
      ---+----------+------------- internet 198.51.100.0/24 ------------+---------+
                                                                                  |
                                                               home [port-restricted, no UDP]
                                                                                  |
                                                               alice: a web server, at its overlay address

tests/unit/frontdoor has the decision; here it is p2pnode that makes it, with real clients at both ends.
"""

import socket
import ssl
import time

import pytest

import web
from lab import wait_until
from overlay import Overlay
from test_relay_operator import Supervised
from test_webgw import Admin
from traffic import Echo, Pulse

PAGE = "hello from alice, behind her NAT\n"
RELAY_ALPN = "p2pnode-relay/1"
FLOOD = 300


@pytest.fixture
def town(lab, build):
    """As drawn; no option of [public] or [frontdoor] says anything of ports."""
    overlay = Overlay(lab, build, members=("alice", "bob"))
    relay = overlay.relay
    relay.config.write_text(relay.config.read_text() + """
[frontdoor]
host = https://app.demo alice:8443
host = http://app.demo alice:8080
host = *.demo 127.0.0.1:1
""")
    relay.kill()
    relay.start()
    overlay.join()
    overlay.outside = lab.host("outside", overlay.internet)
    overlay.web = web.Web(overlay.nodes["alice"], PAGE)
    return overlay


def curl(town, url, *options, check=True):
    return web.curl(town.outside, town.relay.host.ip, town.web, url, *options, check=check)


def tls(stream, name=None, alpn=None):
    """TLS over it, without a certificate of our own; what the handshake says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols([alpn])
    return context.wrap_socket(stream, server_hostname=name)


def visit(town, name=None, alpn=None):
    """From outside to port 443."""
    visitor = town.outside.socket(kind=socket.SOCK_STREAM)
    visitor.settimeout(20)
    visitor.connect((town.relay.host.ip, 443))
    return tls(visitor, name, alpn)


def refused(town):
    return int(town.relay.rpc("relay.status")["refused"]["no valid TLS"])


def test_relay_over_tls_and_a_published_host_have_one_port(town):
    alice, bob, relay = town.nodes["alice"], town.nodes["bob"], town.relay
    for name in ("alice", "bob"):
        town.routers[name].block_udp()
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        wait_until(lambda: relay.rpc("relay.status")["tls_clients"] == 2, 30,
                   lambda: f"both are clients over TLS: {relay.rpc('relay.status')}")
        pulse.keeps_going(50)
        assert alice.peer("bob")["path"] == "relay"
        assert curl(town, "https://app.demo/").stdout == PAGE
        assert curl(town, "http://app.demo/").stdout == PAGE
        pulse.keeps_going(50)


def test_a_stranger_who_asks_for_the_node_itself_is_the_relays_to_refuse(town):
    """As when the relay has the port alone: a handshake, in which it says who it is, and then what is missing."""
    for name, alpn in (("relay", None), (None, None), ("relay", "h2"), ("other.example", RELAY_ALPN)):
        before = refused(town)
        with pytest.raises(ssl.SSLError):
            visit(town, name, alpn).recv(1)
        wait_until(lambda: refused(town) == before + 1, 10, f"{name} {alpn} is counted")


def test_a_flood_for_the_relay_is_bounded_by_source_and_members_do_not_notice(town):
    """All of one address, more than the relay takes of it in a second: some are refused, and alice's traffic goes on."""
    alice, bob = town.nodes["alice"], town.nodes["bob"]
    for name in ("alice", "bob"):
        town.routers[name].block_udp()
    wait_until(lambda: town.relay.rpc("relay.status")["tls_clients"] == 2, 30, "both are clients over TLS")
    hello = first_flight("relay", RELAY_ALPN)
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.keeps_going(20)
        begin = time.monotonic()
        flood = []
        for _ in range(FLOOD):
            stream = town.outside.socket(kind=socket.SOCK_STREAM)
            stream.settimeout(20)
            stream.connect((town.relay.host.ip, 443))
            stream.sendall(hello)
            flood.append(stream)
        wait_until(lambda: limited(town) > 0, 20, lambda: f"some are refused: {town.relay.rpc('relay.status')['refused']}")
        pulse.keeps_going(50)
        assert pulse.longest_gap(since=begin) < 2.0
        assert curl(town, "https://app.demo/").stdout == PAGE  # from the flood's own address
    for stream in flood:
        stream.close()
    assert town.relay.rpc("relay.status")["tls_clients"] == 2


def limited(town):
    """Connections that the relay refused as too many of one source, of one address or of its network."""
    causes = town.relay.rpc("relay.status")["refused"]
    return int(causes["too many of one source"]) + int(causes["too many handshakes"])


def first_flight(name, alpn):
    """A ClientHello, and nothing after it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    said = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name).do_handshake()
    return said.read()


def test_nobody_publishes_the_name_of_the_public_node(town):
    alice = town.nodes["alice"]
    refused_by_node = alice.ctl("expose", "https://relay", "8443", check=False)
    assert refused_by_node.returncode != 0
    assert "relay is a public node of this network, and its relay is asked for by that name" in refused_by_node.stderr
    refused_by_control = town.control.admin("host", "add", "alice", "relay", check=False)
    assert refused_by_control.returncode != 0
    assert "a host needs another" in refused_by_control.stderr + refused_by_control.stdout


def test_a_renamed_public_node_is_asked_for_by_its_new_name(town):
    """And its own host of that name is refused, which is said once, however often the map changes."""
    relay = town.relay
    relay.kill()
    relay.config.write_text(relay.config.read_text() + "host = https://hub 127.0.0.1:1\n")
    relay.start()
    relay.wait_for_control()
    town.control.admin("node", "rename", "relay", "hub")
    wait_until(lambda: "host hub is refused" in relay.program.log.read_text(), 20, "the new name is known")
    before = refused(town)
    with pytest.raises(ssl.SSLError):
        visit(town, "hub").recv(1)
    wait_until(lambda: refused(town) == before + 1, 10, "it is the relay's")
    with pytest.raises(ConnectionResetError):
        visit(town, "relay").recv(1)
    town.control.admin("node", "rename", "bob", "robert")
    wait_until(lambda: "robert" in relay.peers(), 20, "the map has changed")
    assert relay.program.log.read_text().count("host hub is refused") == 1
    digest = "00" * 32
    relay.kill()
    relay.config.write_text(relay.config.read_text().replace("host = https://hub 127.0.0.1:1\n", f"""
[webgw]
listen = 9080
allow_plaintext = yes
host = www.example.com {digest}
"""))
    relay.start()
    relay.wait_for_control()
    status, why = Admin(relay).ask("POST", "/api/v1/proxy", {"host": "hub", "hexSecretHash": digest})
    assert status == 409 and "own name" in why["error"]
    assert Admin(relay).ask("POST", "/api/v1/proxy", {"host": "relay", "hexSecretHash": digest})[0] == 200


def test_one_socket_outlives_a_restart_for_both(town):
    """As under systemd: who comes while nobody runs is served by the next, be it a client of the relay or a visitor."""
    relay = town.relay
    relay.program.stop()
    relay.program = Supervised(relay.host, relay.argv, "supervised")
    relay.host.programs.append(relay.program)
    relay.program.await_kept()
    places = [kept.getsockname()[1] for kept in relay.program.kept if kept.type == socket.SOCK_STREAM]
    assert places == [443]
    relay.wait_for_control()
    relay.kill()
    with town.outside.socket(kind=socket.SOCK_STREAM) as visitor, town.outside.socket(kind=socket.SOCK_STREAM) as client:
        for stream in (visitor, client):
            stream.settimeout(20)
            stream.connect((relay.host.ip, 443))  # by the kernel, though nobody is there
        relay.start()
        before = refused(town)
        with pytest.raises(ssl.SSLError):
            tls(client, "relay").recv(1)
        assert refused(town) == before + 1
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            visitor.recv(1)
    assert int(relay.status()["drops"]["front door: unknown host"]) == 1
    town.nodes["alice"].wait_for_relay()


def test_sharing_is_turned_on_and_off_by_a_restart_though_systemd_keeps_the_sockets(lab, build):
    """Its copies of those that are not wanted any more must not listen on: the port could not be bound."""
    overlay = Overlay(lab, build, members=("alice",))
    relay = overlay.relay
    relay.program.stop()
    relay.program = Supervised(relay.host, relay.argv, "supervised")
    relay.host.programs.append(relay.program)
    relay.wait_for(lambda status: True, "answers")
    overlay.join()
    relay.program.await_kept()
    own = relay.config.read_text()
    both = own + "[frontdoor]\nhost = app.demo 127.0.0.1:1\n"
    apart = both.replace("[public]\n", "[public]\ntls_port = 8443\n")
    for text, places in ((both, {("::", 443)}), (apart, {(relay.host.ip, 8443)}), (both, {("::", 443)}),
                         (own, {("::", 443)})):
        relay.kill()
        relay.config.write_text(text)
        relay.start()
        relay.wait_for_control()
        relay.program.await_kept()
        assert {kept.getsockname()[:2] for kept in relay.program.kept if kept.type == socket.SOCK_STREAM} == places
        assert all(kept.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for kept in relay.program.kept
                   if kept.type == socket.SOCK_STREAM)
    relay.kill()
    relay.config.write_text(both.replace(f"[public]\naddress = {relay.host.ip}\n", ""))  # no relay any more, the door stays
    relay.start()
    relay.wait_for_control()
    assert not any(kept.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for kept in relay.program.kept)
