"""What a member publishes, from a visitor to the server behind the member: who the visitor is goes along, the member
decides who may come, and counts.

      control    relay (public node, front door)    outside
         |          |                                  |
      ---+----------+---- internet 198.51.100.0/24 ----+--------+-----------------+
                                                                |                 |
                                                     home [port-restricted]   office [port-restricted]
                                                                |                 |
                                                   alice: a server at 127.0.0.1   bob: nobody's door

tests/unit/frontdoor/test_door_header.c and tests/unit/node/test_acceptor.c have the rules one by one.
"""

import re
import socket
import struct

import pytest

import web

from lab import wait_until
from overlay import Overlay

REQUEST = b"GET / HTTP/1.1\r\nHost: app.demo\r\n\r\n"
PAGES = {"alice": "from alice\n", "bob": "from bob\n"}


@pytest.fixture
def town(lab, build):
    overlay = Overlay(lab, build).join_with_front_door("tls_port = 9443\n[frontdoor]\nlisten = 80\n")
    overlay.control.admin("host", "add", "alice", "app.demo")
    return overlay


def expose(town, *options):
    """Returns when visitors can come."""
    alice = town.nodes["alice"]
    alice.ctl("expose", "app.demo", "8080", *options)
    wait_until(lambda: exposure(town)["state"] == "live", 10, "app.demo is published")


def exposure(town):
    return town.nodes["alice"].rpc("node.exposures")["exposures"][0]


def counts(town, **expected):
    """Waits for what alice counts of the exposure."""
    def found():
        now = exposure(town)
        return all(now[name] == str(n) for name, n in expected.items())
    return wait_until(found, 10, lambda: f"{expected}: {exposure(town)}")


def visit(town):
    visitor = town.outside.socket(kind=socket.SOCK_STREAM)
    visitor.settimeout(20)
    visitor.connect((town.relay.host.ip, 80))
    visitor.sendall(REQUEST)
    return visitor


def is_reset(connection):
    """Before a byte."""
    with connection, pytest.raises(ConnectionResetError):
        assert connection.recv(1) == b"", "a byte"
    return True


def served(listener):
    """The next who comes and says something; who only looks whether the server is there does not."""
    while True:
        server, _ = listener.accept()
        server.settimeout(20)
        head = server.recv(28)
        if head:
            return server, head
        server.close()


def test_the_member_is_told_who_visits_and_decides_who_may(town):
    alice, bob = town.nodes["alice"], town.nodes["bob"]
    listener = alice.host.socket(kind=socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 8080))
    listener.listen(5)
    listener.settimeout(20)
    expose(town, "--proxy", "v2")

    # The visitor's own address arrives at the server, and in front of its first bytes nothing else does.
    visitor = wait_until(lambda: visit_if_led(town), 10, "the front door leads to alice")
    server, head = served(listener)
    (length,) = struct.unpack(">H", head[14:16])
    source, port = socket.inet_ntoa(head[16:20]), struct.unpack(">H", head[24:26])[0]
    assert head[:14] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11" and (source, port) == visitor.getsockname()
    rest = server.recv(length - 12 + len(REQUEST), socket.MSG_WAITALL)
    assert b"app.demo" in rest[:length - 12] and rest[length - 12:] == REQUEST
    visitor.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.sendall(b"x" * 300000)
    server.close()
    assert b"".join(iter(lambda: visitor.recv(65536), b"")) == b"x" * 300000
    counts(town, visitors=1, visitors_now=0, bytes_out=300000, not_allowed=0)
    assert exposure(town)["server"] == "up"

    # Who is no front door of the network is reset, member or not.
    stranger = bob.host.socket(kind=socket.SOCK_STREAM)
    stranger.settimeout(20)
    try:
        stranger.connect((alice.ip, acceptor_port(alice)))
        assert is_reset(stranger)
    except ConnectionResetError:
        stranger.close()
    assert int(alice.status()["drops"]["exposed: not by a front door"]) == 1

    # Who is not allowed is reset, and then who finds no server.
    expose(town, "--allow", "10.0.0.0/8")
    assert is_reset(visit(town))
    counts(town, not_allowed=1, visitors=0)
    expose(town)
    listener.close()
    assert is_reset(visit(town))
    counts(town, not_reached=1)
    assert exposure(town)["server"] == "down" and exposure(town)["state"] == "target down"
    table = alice.ctl("exposures").stdout
    assert "target down" in table and "nobody takes connections at 127.0.0.1:8080: start the server there" in table
    said = alice.ctl("expose", "app.demo", "8081").stdout
    assert said.startswith("app.demo is kept, but not live yet: target down: nobody takes connections at 127.0.0.1:8081")


def visit_if_led(town):
    """None: the front door does not know the host yet."""
    before = town.relay.status()["drops"]["front door: unknown host"]
    visitor = visit(town)
    wait_until(lambda: town.relay.status()["drops"]["front door: unknown host"] != before or
               exposure(town)["visitors"] != "0", 10, "it is led somewhere, or not")
    if exposure(town)["visitors"] != "0":
        return visitor
    visitor.close()
    return None


def acceptor_port(node):
    """As the node's log says."""
    return int(re.search(r"front doors bring visitors to \S+, port (\d+)", node.program.output())[1])


def page(town, host):
    """What a visitor of it gets; None: a reset."""
    done = web.curl(town.outside, town.relay.host.ip, town.web["bob"], f"http://{host}/", check=False)
    assert done.returncode in (0, 52, 56), done
    return done.stdout if done.returncode == 0 else None


def test_a_name_of_one_is_never_led_to_the_wildcard_of_another(town):
    alice, bob, control = town.nodes["alice"], town.nodes["bob"], town.control
    town.web = {name: web.Web(town.nodes[name], text, address="127.0.0.1") for name, text in PAGES.items()}
    control.admin("host", "add", "bob", "*.demo")
    bob.ctl("expose", "*.demo", "8080")
    wait_until(lambda: page(town, "b.demo") == PAGES["bob"], 10, "the wildcard is bob's")

    # app.demo is granted to alice, who does not publish it.
    before = int(town.relay.status()["drops"]["front door: nobody there"])
    assert page(town, "app.demo") is None
    assert int(town.relay.status()["drops"]["front door: nobody there"]) == before + 1

    # Also not while she comes and goes, and not after a restart of the door by its cached map.
    expose(town)
    wait_until(lambda: page(town, "app.demo") == PAGES["alice"], 10, "published")
    alice.ctl("unexpose", "app.demo")
    wait_until(lambda: page(town, "app.demo") is None, 10, "unexposed")
    assert page(town, "b.demo") == PAGES["bob"]
    kept = town.relay.state / "map.json"
    wait_until(lambda: all(word in kept.read_text() for word in ('"hosts":["*.demo"]', '"hosts":["app.demo"]')), 10, "kept")
    control.kill()
    town.relay.kill()
    town.relay.start()
    wait_until(lambda: page(town, "b.demo") == PAGES["bob"], 20, "by the cached map")
    assert page(town, "app.demo") is None

    # When it is nobody's any more, it is one of the wildcard's.
    control.start()
    for node in (town.relay, alice, bob):
        node.wait_for_control()
    control.admin("host", "remove", "alice", "app.demo")
    wait_until(lambda: page(town, "app.demo") == PAGES["bob"], 10, "nobody's")


def test_members_that_publish_one_host_share_it_and_who_fails_is_passed_over(town):
    alice, bob = members = town.nodes["alice"], town.nodes["bob"]
    town.web = {name: web.Web(town.nodes[name], text, address="127.0.0.1") for name, text in PAGES.items()}
    town.control.admin("host", "add", "bob", "app.demo")

    def pages(n=4):
        return [page(town, "app.demo") for _ in range(n)]

    def is_shared():
        return sorted(pages()) == sorted([*PAGES.values(), *PAGES.values()])

    for member in members:
        member.ctl("expose", "app.demo", "8080")
    wait_until(is_shared, 10, "each has every second visitor")

    # alice's server is gone: nobody notices, and when it is there again it has its share.
    town.web["alice"].program.kill()
    assert pages(6) == [PAGES["bob"]] * 6
    assert "app.demo of alice does not answer" in town.relay.program.output()
    town.web["alice"].program.restart()
    wait_until(is_shared, 30, "alice is back")

    # bob's node is gone, without a word.
    bob.kill()
    assert pages(6) == [PAGES["alice"]] * 6
    bob.start()
    bob.wait_for_control()
    wait_until(is_shared, 30, "bob is back")
    assert town.relay.program.running


def test_a_visitor_in_a_ring_is_refused_and_what_is_not_open_says_so(town):
    alice = town.nodes["alice"]

    # Nobody can come in: the overlay address is gone when the acceptor is to open.
    alice.host.run(["ip", "address", "delete", f"{alice.ip}/16", "dev", "p2p0"])
    alice.ctl("expose", "app.demo", f"{town.relay.host.ip}:80")
    assert exposure(town)["state"] == "not open" and alice.ip in exposure(town)["why"]
    assert "tried again every 10 s" in alice.ctl("exposures").stdout
    alice.host.run(["ip", "address", "add", f"{alice.ip}/16", "dev", "p2p0"])
    wait_until(lambda: exposure(town)["state"] == "live", 20, lambda: exposure(town)["state"])

    # What she publishes is at the front door itself: a visitor would come round, and round again.
    wait_until(lambda: is_reset(visit(town)) and int(alice.status()["drops"]["exposed: led in a ring"]) >= 1, 10, "a ring")
    assert exposure(town)["visitors"] == "0"
