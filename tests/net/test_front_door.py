"""The front door: what runs behind a NAT has a public address, by HTTP and by HTTPS.

      control    relay (public node, front door)    outside
         |          |                                  |
      ---+----------+---- internet 198.51.100.0/24 ----+--------+
                                                                |
                                                     home [port-restricted]
                                                                |
                                                              alice: a web server, at its overlay address

A visitor knows only the public node's address and the name of the host. tests/unit/frontdoor has the door's rules
one by one; here it is p2pnode that keeps them.
"""

import socket
import struct

import pytest

import web
from lab import LabError, wait_until
from overlay import Overlay

PAGE = "hello from alice, behind her NAT\n"


@pytest.fixture
def town(lab, build):
    """The network as drawn, its front door open, alice's web server behind it."""
    overlay = Overlay(lab, build, members=("alice",)).join_with_front_door("""
[frontdoor]
listen = 80, 443
host = http://app.demo alice:8080
host = https://app.demo alice:8443
host = static.demo 127.0.0.1:8080
host = gone.demo nobody:80
max_visitors_source = 50
""")
    overlay.web = web.Web(overlay.nodes["alice"], PAGE)
    return overlay


def curl(town, url, *options, check=True):
    """From outside."""
    return web.curl(town.outside, town.relay.host.ip, town.web, url, *options, check=check)


def visit(town, port=80):
    visitor = town.outside.socket(kind=socket.SOCK_STREAM)
    visitor.settimeout(20)
    visitor.connect((town.relay.host.ip, port))
    return visitor


def hears_reset(visitor):
    """Without a byte before."""
    with pytest.raises(ConnectionResetError):
        raise LabError(f"heard {visitor.recv(1)!r}")
    visitor.close()
    return True


def request(host):
    return f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def test_a_web_server_behind_a_nat_has_a_public_address(town):
    assert curl(town, "http://app.demo/").stdout == PAGE
    assert curl(town, "https://app.demo/").stdout == PAGE  # the certificate is alice's own: nobody opened the TLS
    assert curl(town, "http://APP.demo.:80/").stdout == PAGE
    many = curl(town, "https://app.demo/[1-20]", "--parallel", "--output", "/dev/null", "--write-out", "%{http_code} ")
    assert many.stdout.split() == ["404"] * 20  # no such page; by twenty visitors at once


def test_who_asks_for_another_host_is_reset_before_a_byte(town):
    for host in ("other.demo", "static2.demo", "gone.demo", "static.demo"):
        visitor = visit(town)
        visitor.sendall(request(host))
        assert hears_reset(visitor), host
    with pytest.raises(LabError, match="(?i)reset|connect error|SSL"):
        curl(town, "https://other.demo/")
    drops = town.relay.status()["drops"]
    assert int(drops["front door: nobody there"]) == 1 and int(drops["front door: target not reached"]) == 1
    log = town.relay.program.output()
    assert "unknown host: other.demo" in log and "nobody is there: gone.demo" in log


def test_silent_visitors_are_reset_in_time_and_delay_nobody(town):
    silent = [visit(town) for _ in range(40)]
    assert curl(town, "http://app.demo/").stdout == PAGE
    late = [visit_if_let(town) for _ in range(20)]
    wait_until(lambda: sum(is_reset(visitor) for visitor in late) == 10, 5, "ten of sixty have no place")
    assert all(hears_reset(visitor) for visitor in silent)
    assert curl(town, "http://app.demo/").stdout == PAGE


def visit_if_let(town):
    """None: reset before connect() had returned."""
    try:
        return visit(town)
    except ConnectionResetError:
        return None


def is_reset(visitor):
    if visitor is None or visitor.fileno() < 0:
        return True
    visitor.settimeout(0)
    try:
        raise LabError(f"a silent visitor heard {visitor.recv(1)!r}")
    except BlockingIOError:
        return False
    except ConnectionResetError:
        visitor.close()
        return True


def test_ends_and_resets_pass_through_door_and_overlay(town):
    alice = town.nodes["alice"]
    listener = alice.host.socket(kind=socket.SOCK_STREAM)
    town.web.program.kill()
    listener.bind((alice.ip, 8080))
    listener.listen(2)
    listener.settimeout(20)

    def pair():
        visitor = visit(town)
        visitor.sendall(request("app.demo"))
        server, _ = listener.accept()
        server.settimeout(20)
        assert server.recv(4096) == request("app.demo")
        return visitor, server

    visitor, server = pair()
    visitor.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.sendall(b"x" * 300000)
    server.close()
    got = b"".join(iter(lambda: visitor.recv(65536), b""))
    assert got == b"x" * 300000

    for resets, hears in ((0, 1), (1, 0)):
        ends = pair()
        ends[resets].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ends[resets].close()
        assert hears_reset(ends[hears])


def test_members_that_come_and_go_are_followed(town):
    """Routes follow the map: carol is nobody until she joins, and is found then without a restart."""
    relay = town.relay
    text = relay.config.read_text().replace("nobody:80", "carol:8080")
    relay.config.write_text(text)
    relay.kill()
    relay.start()
    relay.wait_for_control()
    visitor = visit(town)
    visitor.sendall(request("gone.demo"))
    assert hears_reset(visitor)
    carol = town.add("carol")
    carol.join(town.control.link())
    relay.wait_for_peer("carol")
    web.Web(carol, PAGE)
    wait_until(lambda: curl(town, "http://gone.demo/", check=False).stdout == PAGE, 20, "carol's page")
