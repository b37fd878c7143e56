"""webgw: agents of ours are told who a visitor is, and tell their targets, by the PROXY protocol.

The lab of test_webgw.py, with IPv6 as well. Headers are read here from the protocol's text alone (HAProxy's proxy-protocol.txt).
"""

import base64
import hashlib
import ipaddress
import json
import os
import re
import shutil
import socket
import ssl
import struct

import pytest

from lab import LabError, wait_until
from overlay import Node
from test_webgw import (REQUEST, SECRET, TAKEN, accept, accept_who_speaks, client_hello, figure, listening, make_town, passes, passes_in_tls,
                        read, start_agent, warm, warm_now)
from webgw import Agent, Link, TlsAgent

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


def came(town, by_warm, raw):
    """So many visitors were handed to warm connections, of whom some were taken in time, and so many are not wrapped."""
    names = 'warm_visitors_total{taken="yes"}', 'warm_visitors_total{taken="not_in_time"}', "raw_visitors_total"

    def counted():
        return [figure(town.relay.host, name) for name in names]

    def all_came():
        taken, not_in_time, not_wrapped = counted()
        return taken + not_in_time == by_warm and taken >= min(by_warm, 1) and not_wrapped == raw
    wait_until(all_came, 10, lambda: f"{counted()}, and not {by_warm} in the first two and {raw}")


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
            wait_until(lambda: warm_now(town) >= n_warm, 15, "that as many as should be are warm")
            visitor, source, destination = comes(town, first, port, family)
            carried = accept_who_speaks(target)
            assert header(carried) == (source, destination, values)
            assert passes(visitor, carried, first)
    came(town, 4 * n_warm, raw=2)
    assert [host["target"] for host in node.status()["webgw_agent"]["hosts"]] == [
        "http://127.0.0.1:8080 proxy=v1 https://127.0.0.1:8443 proxy=v2"]


@pytest.mark.parametrize("n_warm", [0, 1])
def test_http_in_version_2_and_https_in_version_1_as_well(town, n_warm):
    start_agent(town, f"expose = https://www.example.com 127.0.0.1:8443 proxy=v1\nwarm = {n_warm}\n",
                expose="http://www.example.com 127.0.0.1:8080 proxy=v2", leads="www.example.com leads to")
    schemes = {80: (listening(town, 8080), REQUEST, read_v2, {2: b"www.example.com", 0xe0: b"\x01"}),
               443: (listening(town, 8443), client_hello(), read_v1, {})}
    for port, (target, first, header, values) in schemes.items():
        wait_until(lambda: warm_now(town) >= n_warm, 15, "that as many as should be are warm")
        visitor, source, destination = comes(town, first, port)
        carried = accept_who_speaks(target)
        assert header(carried) == (source, destination, values)
        assert passes(visitor, carried, first)
    came(town, 2 * n_warm, raw=1)


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


class NodeOfBefore:
    """A node that knows nothing of visitors' addresses: its WebSocket, and where agents dial back."""

    GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

    def __init__(self, host):
        key, certificate = host.folder / "key.pem", host.folder / "certificate.pem"
        host.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=before",
                  "-keyout", str(key), "-out", str(certificate)])
        public = host.run(["openssl", "x509", "-in", str(certificate), "-pubkey", "-noout"]).stdout
        self.pin = base64.urlsafe_b64encode(hashlib.sha256(ssl.PEM_cert_to_DER_cert(
            public.replace("PUBLIC KEY", "CERTIFICATE"))).digest()).decode().rstrip("=")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # as in webgw.py
        self.context.load_cert_chain(certificate, key)
        self.listeners = [self.listen(host, port) for port in (9081, 4659)]

    @staticmethod
    def listen(host, port):
        listener = host.socket(kind=socket.SOCK_STREAM)
        listener.bind((host.ip, port))
        listener.listen(8)
        listener.settimeout(20)
        return listener

    def accept(self, listener):
        return self.context.wrap_socket(accept(listener), server_side=True, suppress_ragged_eofs=False)

    def open(self):
        self.socket = self.accept(self.listeners[0])
        head = b""
        while b"\r\n\r\n" not in head:
            head += read(self.socket, 1)
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", head)[1]
        self.socket.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                            + base64.b64encode(hashlib.sha1(key + self.GUID).digest()) + b"\r\n\r\n")

    def hear(self):
        n = read(self.socket, 2)[1] & 0x7F
        if n == 126:
            n = struct.unpack("!H", read(self.socket, 2))[0]
        mask = read(self.socket, 4)
        return json.loads(bytes(b ^ mask[i % 4] for i, b in enumerate(read(self.socket, n))))

    def say(self, **message):
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        length = bytes([len(data)]) if len(data) < 126 else bytes([126]) + struct.pack("!H", len(data))
        self.socket.sendall(b"\x81" + length + data)


class NodeLink(Link):
    """The other end of one: what an agent has dialled."""

    def __init__(self, connected, context):
        self.socket, self.incoming, self.outgoing = connected, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.until_done(self.tls.do_handshake)

    def read(self, n):
        got = b""
        while len(got) < n:
            got += self.until_done(lambda: self.tls.read(n - len(got)))
        return got


def begin_agent(before, agents, build, config):
    (agents.folder / "secret").write_text(SECRET.hex() + "\n")
    (agents.folder / "secret").chmod(0o600)
    return Node(build, agents, config=f"""
[webgw-agent]
server = {before.listeners[0].getsockname()[0]}:9081
server_pin = {before.pin}
secret_file = {agents.folder / "secret"}
{config}""").start()


def test_a_visitor_of_whom_it_is_not_told_who_it_is_is_reset_however_it_comes(lab, build):
    """By a node that has said that it tells: each start of a warm connection, and one that is dialled for who speaks TLS."""
    internet = lab.network()
    before, agents = NodeOfBefore(lab.host("before", internet)), lab.host("agents", internet)
    before.context.set_alpn_protocols(["p2p-webgw/2"])
    target = agents.socket(kind=socket.SOCK_STREAM)
    target.bind(("127.0.0.1", 8080))
    target.listen(8)
    target.setblocking(False)
    node = begin_agent(before, agents, build, "expose = www.example.com 127.0.0.1:8080 proxy=v2\nwarm = 1\n")
    before.open()
    before.say(result={"subscription": 7, "visitor": True}, id=before.hear()["id"])
    links, hello = [], client_hello()

    def next_warm():
        if not links:
            message = before.hear()
            assert message["method"] == "webgw_prepare"
            secrets = [os.urandom(32) for _ in range(message["params"]["count"])]
            before.say(result={"serverListeningPort": 4659, "secrets": [secret.hex() for secret in secrets]}, id=message["id"])
            for _ in secrets:
                links.append(NodeLink(accept(before.listeners[1]), before.context))
                said = links[-1].read(33)
                assert said[:1] == b"\x01" and said[1:] in secrets
        return links.pop()

    def start(kind, port, rest):
        return bytes([kind]) + os.urandom(32) + struct.pack("!HB", port, 15) + b"www.example.com" + rest
    for port, first in ((80, REQUEST), (443, hello)):
        link = next_warm()
        link.say(start(1, port, first))
        assert link.read(1) == TAKEN
        with pytest.raises((ConnectionResetError, LabError), match="reset|without TLS's goodbye"):  # which a node makes a reset
            raise LabError(f"heard {link.read(1)!r}")
    link = next_warm()
    link.say(start(2, 443, struct.pack("!H", len(hello)) + hello))
    link.end_tls()
    assert link.read_to_tls_end() == TAKEN
    with pytest.raises(ConnectionResetError):
        raise LabError(f"heard {link.socket.recv(1)!r}")
    link, secret = next_warm(), os.urandom(32)
    before.say(method="webgw_registerClient", params={"subscription": 7, "result": {
        "secret": secret.hex(), "port": 443, "serverListeningPort": 4659, "host": "www.example.com"}})
    raw = NodeLink(accept(before.listeners[1]), before.context)
    assert raw.read_to_tls_end() == b"\x02" + secret
    raw.end_tls()
    with pytest.raises(ConnectionResetError):
        raise LabError(f"heard {raw.socket.recv(1)!r}")
    node.program.wait_for_log("a visitor is refused: who it is was not told", 5)
    with pytest.raises(BlockingIOError):
        target.accept()
    link.say(start(3, 80, 2 * (b"\0" * 10 + b"\xff\xff" + bytes([192, 0, 2, 7, 0, 80])) + REQUEST))
    target.settimeout(20)
    carried = accept(target)
    assert read_v2(carried)[:2] == (("192.0.2.7", 80),) * 2 and read(carried, len(REQUEST)) == REQUEST


def test_a_node_that_does_not_tell_who_visits_gets_no_host_whose_target_has_to_know(lab, build):
    internet = lab.network()
    before, agents = NodeOfBefore(lab.host("before", internet)), lab.host("agents", internet)
    target = agents.socket(kind=socket.SOCK_STREAM)
    target.bind(("127.0.0.1", 8080))
    target.listen(8)
    node = begin_agent(before, agents, build, """
expose = www.example.com 127.0.0.1:8080 proxy=v2
expose = other.example.com 127.0.0.1:8080
warm = 0
""")
    before.open()
    asked = {message["params"]["host"]: message for message in (before.hear(), before.hear())}
    assert asked["www.example.com"]["params"]["visitor"] is True and "visitor" not in asked["other.example.com"]["params"]
    for subscription, host in ((7, "www.example.com"), (8, "other.example.com")):
        before.say(result=subscription, id=asked[host]["id"])
    message = before.hear()
    assert message["method"] == "webgw_unregisterClient" and message["params"] == {"subscription": 7}
    told = [("www.example.com", "refused", "it does not tell who visits, as proxy= needs: update that node, or leave proxy= out"),
            ("other.example.com", "subscribed", "")]
    wait_until(lambda: [(host["host"], host["state"], host.get("why", "")) for host in node.status()["webgw_agent"]["hosts"]] == told,
               10, lambda: str(node.status()["webgw_agent"]))
    for subscription, is_led in ((7, False), (8, True)):  # the first was told before it was given up
        secret = os.urandom(32)
        before.say(method="webgw_registerClient", params={"subscription": subscription, "result": {
            "secret": secret.hex(), "port": 80, "serverListeningPort": 4659, "host": "www.example.com"}})
        caller = before.accept(before.listeners[1])
        assert read(caller, 32) == secret
        if is_led:
            caller.sendall(REQUEST)
            target.settimeout(20)
            assert read(accept(target), len(REQUEST)) == REQUEST
        else:
            with pytest.raises((ConnectionError, ssl.SSLError)):
                caller.sendall(REQUEST)
                raise LabError(f"heard {caller.recv(1)!r}")
            target.setblocking(False)
            with pytest.raises(BlockingIOError):
                target.accept()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_nginx_as_a_target_reads_who_the_visitor_is(town, version):
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    folder = town.agents.folder / "nginx"
    folder.mkdir()
    paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    server = ('server { listen 127.0.0.1:8080 proxy_protocol; access_log off; '
              'return 200 "$proxy_protocol_addr $proxy_protocol_server_addr:$proxy_protocol_server_port\\n"; }')
    (folder / "nginx.conf").write_text(f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
                                       f"events {{}}\nhttp {{ {paths} {server} }}\n")
    town.agents.start(["nginx", "-c", str(folder / "nginx.conf")], name="nginx")
    wait_until(lambda: (folder / "nginx.pid").exists(), 10, "nginx")
    start_agent(town, expose=f"http://www.example.com 127.0.0.1:8080 proxy={version}",
                leads=f"www.example.com leads to http://127.0.0.1:8080 proxy={version}")
    for address, own in ((town.relay.host.ip, town.outside.ip), (f"[{town.relay.host.ip6}]", town.outside.ip6)):
        said = town.outside.run(["curl", "-sS", "-m", "10", "-H", "Host: www.example.com", f"http://{address}/"]).stdout
        assert said == f"{own} {address.strip('[]')}:80\n"
