"""webgw: agents of ours are told who a visitor is, and tell their targets, by the PROXY protocol.

The lab of test_webgw.py, with IPv6 as well. Headers are read here from the protocol's text alone (HAProxy's proxy-protocol.txt).
"""

import ipaddress
import socket
import struct

import pytest

from lab import wait_until
from test_webgw import (REQUEST, SECRET, accept_who_speaks, client_hello, listening, make_town, passes, passes_in_tls, read, start_agent,
                        warm, warm_now)
from webgw import Agent, TlsAgent

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FAMILIES = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def town(lab, build):
    return make_town(lab, build, internet=("198.51.100.0/24", "2001:db8::/64"))


def comes(town, first, port, family=socket.AF_INET):
    """A visitor, and what it and the door are to each other: from, to."""
    visitor = town.outside.socket(family, socket.SOCK_STREAM)
    visitor.settimeout(20)
    visitor.connect((town.relay.host.ip if family == socket.AF_INET else town.relay.host.ip6, port))
    visitor.sendall(first)
    return visitor, visitor.getsockname()[:2], visitor.getpeername()[:2]


def read_v1(end):
    line = b""
    while not line.endswith(b"\r\n"):
        line += read(end, 1)
    _, kind, source, destination, source_port, destination_port = line[:-2].decode().split(" ")
    assert kind == ("TCP6" if ":" in source else "TCP4")
    return (source, int(source_port)), (destination, int(destination_port)), {}


def read_v2(end):
    head = read(end, 16)
    assert head[:13] == SIGNATURE + b"\x21" and head[13] in (0x11, 0x21)
    n = 4 if head[13] == 0x11 else 16
    body = read(end, struct.unpack("!H", head[14:])[0])
    ports = struct.unpack("!HH", body[2 * n:2 * n + 4])
    addresses = [str(ipaddress.ip_address(body[at:at + n])) for at in (0, n)]
    values, at = {}, 2 * n + 4
    while at < len(body):
        size = struct.unpack("!H", body[at + 1:at + 3])[0]
        values[body[at]] = body[at + 3:at + 3 + size]
        at += 3 + size
    return (addresses[0], ports[0]), (addresses[1], ports[1]), values


@pytest.mark.parametrize("n_warm", [0, 1])
def test_targets_of_our_own_agent_read_who_the_visitor_is(town, n_warm):
    node = start_agent(town, f"expose = https://www.example.com 127.0.0.1:8443 proxy=v2\nwarm = {n_warm}\n",
                       expose="http://www.example.com 127.0.0.1:8080 proxy=v1",
                       leads="www.example.com leads to http://127.0.0.1:8080 proxy=v1 https://127.0.0.1:8443 proxy=v2")
    hello = client_hello()
    schemes = {80: (listening(town, 8080), REQUEST, read_v1, {}),
               443: (listening(town, 8443), hello, read_v2, {2: b"www.example.com", 0xe0: b"\x02"})}
    for port, (target, first, header, values) in schemes.items():
        for family in FAMILIES:
            wait_until(lambda: warm_now(town) == n_warm, 15, "that as many as should be are warm")
            visitor, source, destination = comes(town, first, port, family)
            carried = accept_who_speaks(target)
            assert header(carried) == (source, destination, values)
            assert passes(visitor, carried, first)
    assert [host["target"] for host in node.status()["webgw_agent"]["hosts"]] == [
        "http://127.0.0.1:8080 proxy=v1 https://127.0.0.1:8443 proxy=v2"]


@pytest.mark.parametrize("n_warm", [0, 1])
def test_http_in_version_2_and_https_in_version_1_as_well(town, n_warm):
    start_agent(town, f"expose = https://www.example.com 127.0.0.1:8443 proxy=v1\nwarm = {n_warm}\n",
                expose="http://www.example.com 127.0.0.1:8080 proxy=v2", leads="www.example.com leads to")
    schemes = {80: (listening(town, 8080), REQUEST, read_v2, {2: b"www.example.com", 0xe0: b"\x01"}),
               443: (listening(town, 8443), client_hello(), read_v1, {})}
    for port, (target, first, header, values) in schemes.items():
        wait_until(lambda: warm_now(town) == n_warm, 15, "that as many as should be are warm")
        visitor, source, destination = comes(town, first, port)
        carried = accept_who_speaks(target)
        assert header(carried) == (source, destination, values)
        assert passes(visitor, carried, first)


def start_of(link, kind):
    """What the node says when it claims a warm connection: port and what stands behind the host."""
    head = read(link, 36)
    assert head[0] == kind and read(link, head[35]) == b"www.example.com"
    return struct.unpack("!H", head[33:35])[0], read(link, 36) if kind == 3 else b""


def test_who_has_not_asked_or_is_not_within_tls_is_not_told_who_the_visitor_is(town):
    for kind, asks in ((Agent, False), (Agent, True), (TlsAgent, False)):
        agent = kind(town.agents, town.relay.host.ip)
        answer = agent.ask("webgw_registerClient", {"host": "www.example.com", "hex_secret": SECRET.hex(), **({"visitor": True} if asks else {})})
        assert isinstance(answer["result"], int)  # as the original answers
        visitor, *_ = comes(town, REQUEST, 80)
        assert sorted(agent.next_visit()) == ["host", "port", "secret", "serverListeningPort"]
        agent.close()
        visitor.close()


def test_who_has_asked_is_told_by_a_notification_and_by_a_start(town):
    agent = TlsAgent(town.agents, town.relay.host.ip)
    asked = {"host": "www.example.com", "hex_secret": SECRET.hex()}
    assert agent.ask("webgw_registerClient", {**asked, "visitor": "yes"})["error"]["code"] == -32602
    subscription = agent.ask("webgw_registerClient", asked)["result"]
    links = warm(agent, subscription, 1)
    wait_until(lambda: warm_now(town) == 1, 10, "that it is warm")
    visitor, *_ = comes(town, REQUEST, 80)
    assert start_of(links[0], 1) == (80, b"")
    visitor.close()
    assert agent.ask("webgw_registerClient", {**asked, "visitor": True})["result"] == {"subscription": subscription, "visitor": True}
    visitor, source, destination = comes(town, REQUEST, 80, socket.AF_INET6)
    told = agent.next_visit()
    assert told["visitor"] == "[%s]:%u" % source and told["visited"] == "[%s]:%u" % destination
    assert passes_in_tls(visitor, agent.dial_back(told), REQUEST)
    links = warm(agent, subscription, 1)
    wait_until(lambda: warm_now(town) == 1, 10, "that another is warm")
    visitor, source, destination = comes(town, REQUEST, 80)
    mapped = b"".join(ipaddress.ip_address(f"::ffff:{ip}").packed + struct.pack("!H", port) for ip, port in (source, destination))
    assert start_of(links[0], 3) == (80, mapped)
    visitor.close()
