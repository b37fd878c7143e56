"""diglett/2: what runs behind a NAT is reached at a port of the server's loopback, and the gateway is told of it.

      gate: p2pnode with [diglett], a script        home [port-restricted]
         |                                             |
      ---+------ internet 198.51.100.0/24 -------------+
                                                       alice: p2pnode with [diglett-agent], servers of all kinds

Neither is a member of a network, but where a node shows its certificate instead of a token. tests/sim/sim_mux.c measures who slows whom; here it is p2pnode, and sockets.
"""

import hashlib
import json
import os
import socket
import struct
import threading

import pytest

from lab import LabError, wait_until
from overlay import Node, Overlay

TOKEN = "a-token-that-nobody-guesses"
SCRIPT = """#!/bin/sh
echo "$@" >>"$0.log"
"""


def serve(host, port, handle):
    """A thread a connection; handle(connection) talks."""
    listener = host.socket(kind=socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(30)
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection):
        with connection:
            try:
                handle(connection)
            except OSError:
                pass

    threading.Thread(target=accept, daemon=True).start()


def page(connection):
    if b"GET /" in connection.recv(4096):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")


def speak_first(connection):
    connection.sendall(b"220 alice speaks first\r\n")
    connection.recv(1)


def echo_when_all_has_come(connection):
    everything = b"".join(iter(lambda: connection.recv(65536), b""))
    connection.sendall(everything)


def flood(connection):
    while True:
        connection.sendall(b"x" * 65536)


PORTS = {"web": (8001, page), "banner": (8002, speak_first), "echo": (8003, echo_when_all_has_come),
         "flood": (8004, flood)}


class Gate:
    def __init__(self, lab, build, script=None):
        self.build = build
        self.internet = lab.network("internet")
        self.host = lab.host("gate", self.internet)
        self.tokens = self.host.folder / "tokens"
        self.script = script or self.host.folder / "script"
        if not script:
            self.script.write_text(SCRIPT)
            self.script.chmod(0o755)
        self.allow("*.apps.demo")
        self.node = Node(build, self.host, config=f"""
[public]
metrics = 127.0.0.1:9100
[diglett]
info = 127.0.0.1:20080
domain = apps.demo
tokens = {self.tokens}
script = {self.script}
""").start()
        self.home = lab.router("home", self.internet, nat="port-restricted")
        self.alice = lab.host("alice", self.home.inside)
        for port, handle in PORTS.values():
            serve(self.alice, port, handle)

    def allow(self, *names):
        """None: nobody."""
        line = f"{hashlib.sha256(TOKEN.encode()).hexdigest()} {' '.join(names)}\n" if names else "# nobody\n"
        new = self.tokens.with_suffix(".new")
        new.write_text(line)
        new.chmod(0o600)
        new.rename(self.tokens)

    def info(self):
        return json.loads(self.host.run(["curl", "-sS", "http://127.0.0.1:20080/info"]).stdout)

    def figure(self, name):
        """Of the server's metrics."""
        text = self.host.run(["curl", "-sS", "http://127.0.0.1:9100/metrics"]).stdout
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"p2pnode_diglett_{name} "))

    def agent(self, token=TOKEN):
        (self.alice.folder / "token").write_text(token + "\n")
        (self.alice.folder / "token").chmod(0o600)
        exposed = "".join(f"expose = {name} 127.0.0.1:{port}\n" for name, (port, _) in PORTS.items())
        return Node(self.build, self.alice, config=f"""
[diglett-agent]
server = {self.host.ip}:20000
server_key = {self.info()["publicKey"]}
token_file = {self.alice.folder / "token"}
{exposed}""").start()

    def told(self):
        """What the script was told, line by line."""
        log = self.script.with_suffix(".log")
        return log.read_text().splitlines() if log.exists() else []

    def port_of(self, name, since=0):
        """Of the agent's, as soon as the gateway is told."""
        def find():
            for line in reversed(self.told()[since:]):
                if line.startswith(f"add {name}.apps.demo "):
                    return int(line.split()[3])
            return None
        return wait_until(find, 15, f"{name} is told to the gateway")

    def visit(self, name, since=0):
        visitor = self.host.socket(kind=socket.SOCK_STREAM)
        visitor.settimeout(20)
        visitor.connect(("127.0.0.1", self.port_of(name, since)))
        return visitor

    def get(self, since=0):
        """The page, or "" when there is none."""
        with self.visit("web", since) as visitor:
            visitor.sendall(b"GET / HTTP/1.1\r\nHost: web.apps.demo\r\n\r\n")
            try:
                return b"".join(iter(lambda: visitor.recv(4096), b"")).decode().rpartition("\r\n\r\n")[2]
            except ConnectionError:
                return ""


@pytest.fixture
def gate(lab, build):
    return Gate(lab, build)


def test_servers_of_all_kinds_are_reached_and_who_reads_nothing_slows_nobody(gate):
    gate.agent()
    assert gate.get() == "hello\n"
    with gate.visit("banner") as visitor:
        assert visitor.recv(100) == b"220 alice speaks first\r\n"
    stalled = [gate.visit("flood") for _ in range(3)]  # they never read
    with gate.visit("echo") as visitor:
        text = b"0123456789abcdef" * 60000
        visitor.sendall(text)
        visitor.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: visitor.recv(65536), b"")) == text
    with gate.visit("flood") as fast:
        n = 0
        while n < 20_000_000:
            n += len(fast.recv(1 << 20))
    assert gate.get() == "hello\n"
    assert len(stalled) == 3
    assert gate.info()["protocols"] == ["diglett/2"]


def test_a_token_that_is_not_valid_lets_nobody_in_and_one_taken_back_ends_its_agent(gate):
    gate.allow()
    agent = gate.agent()
    agent.program.wait_for_log("the token is not valid", 15)
    assert gate.told() == []
    gate.allow("*.apps.demo")
    assert gate.get() == "hello\n"
    gate.allow("other.demo")
    agent.program.wait_for_log("token revoked", 15)
    wait_until(lambda: sum(line.startswith("remove ") for line in gate.told()) == len(PORTS), 10, "all are removed")
    assert TOKEN not in gate.node.program.output() + agent.program.output()


def test_when_the_server_is_back_so_is_its_agent_and_the_gateway_hears_of_both(gate):
    gate.agent()
    assert gate.get() == "hello\n"
    with gate.visit("flood") as visitor:
        assert visitor.recv(1)
        gate.node.kill()  # without a word: the gateway still knows its ports
        since = len(gate.told())
        gate.node.start()
    assert gate.get(since) == "hello\n"
    since = len(gate.told())
    gate.node.program.stop()
    wait_until(lambda: sum(line.startswith("remove ") for line in gate.told()[since:]) == len(PORTS), 1, "removed at the end")


def test_the_figures_of_the_server_tell_of_agents_refusals_streams_and_the_script(gate):
    gate.allow()
    gate.agent()
    wait_until(lambda: gate.figure('agents_refused_total{cause="token_not_valid"}') > 0, 15, "a refusal is counted")
    assert gate.figure("agents") == 0
    gate.allow("*.apps.demo")
    assert gate.get() == "hello\n"
    with gate.visit("banner") as visitor:
        assert visitor.recv(100) == b"220 alice speaks first\r\n"
        wait_until(lambda: gate.figure('streams{side="server"}') == 1, 5, "the stream is counted")
    wait_until(lambda: gate.figure('streams{side="server"}') == 0, 5, "and counts no more")
    assert gate.figure("agents") == gate.figure("agents_total") == 1
    assert gate.figure('streams_total{side="server"}') == 2
    wait_until(lambda: gate.figure("script_runs_total") == len(PORTS), 5, "the script's runs are counted")
    assert gate.figure("script_failures_total") == gate.figure("script_waiting") == 0


def test_a_token_made_by_p2pctl_lets_in_is_listed_and_its_end_ends_the_agent(gate):
    gate.allow()
    token = gate.node.ctl("diglett", "token", "create", "*.apps.demo", "--label", "alice's").stdout.strip()
    agent = gate.agent(token=token)
    assert gate.get() == "hello\n"
    server = json.loads(gate.node.ctl("diglett", "--json").stdout)["server"]
    [one] = server["agents"]
    assert one["address"].startswith(gate.home.ip + ":") and one["label"] == "alice's"
    assert {port["name"]: port["script"] for port in one["ports"]}["web.apps.demo"] == "told"
    assert "web.apps.demo" in gate.node.ctl("diglett").stdout
    own = json.loads(agent.ctl("diglett", "--json").stdout)["agent"]
    assert own["state"] == "let in" and {"name": "web.apps.demo", "target": "127.0.0.1:8001"} in own["tunnels"]
    [listed] = json.loads(gate.node.ctl("diglett", "token", "list", "--json").stdout)["tokens"]
    since = len(gate.told())
    gate.node.ctl("diglett", "end", "web")
    assert gate.get(since) == "hello\n"  # it has come again
    gate.node.ctl("diglett", "token", "revoke", listed["id"])
    agent.program.wait_for_log("token revoked", 15)
    assert json.loads(gate.node.ctl("diglett", "--json").stdout)["server"]["agents"] == []
    assert token not in gate.node.program.output() + agent.program.output()


class ChaCha20:
    """A stream, by hand; the iv's first 64 bits count its blocks."""

    def __init__(self, key, iv):
        self.key = struct.unpack("<8I", key)
        self.counter, *self.nonce = struct.unpack("<Q2I", iv)
        self.rest = b""

    def block(self):
        first = [*struct.unpack("<4I", b"expand 32-byte k"), *self.key, self.counter & 0xFFFFFFFF, self.counter >> 32, *self.nonce]
        words = list(first)
        for _ in range(10):
            for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                               (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
                for to, by, into, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                    words[to] = (words[to] + words[by]) & 0xFFFFFFFF
                    mixed = words[into] ^ words[to]
                    words[into] = (mixed << n | mixed >> (32 - n)) & 0xFFFFFFFF
        self.counter += 1
        return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(first, words)))

    def update(self, data):
        while len(self.rest) < len(data):
            self.rest += self.block()
        stream, self.rest = self.rest[:len(data)], self.rest[len(data):]
        return bytes(a ^ b for a, b in zip(data, stream))


class AgentOfVersion1:
    """By nothing that p2pnode uses. One visitor at a time."""

    FIELD = 2**256 - 2**32 - 977
    BASE = (0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
            0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8)

    def __init__(self, host, server):
        self.socket = host.socket(kind=socket.SOCK_STREAM)
        self.socket.settimeout(20)
        self.socket.connect(server)
        secret = int.from_bytes(os.urandom(31), "big") + 1
        self.socket.sendall(b"digl\x01" + self.compressed(self.times(secret, self.BASE)))
        hello = self.exactly(38)
        assert hello[:5] == b"digl\x01"
        x = int.from_bytes(hello[6:], "big")
        y = pow(x**3 + 7, (self.FIELD + 1) // 4, self.FIELD)
        shared = self.times(secret, (x, y if y % 2 == hello[5] - 2 else self.FIELD - y))
        key = hashlib.sha512(b"".join(n.to_bytes(32, "big") for n in shared)).digest()
        self.sending, self.receiving = (ChaCha20(key[:32], key[32:48]) for _ in range(2))

    def plus(self, a, b):
        if a is None or b is None:
            return a or b
        if a[0] == b[0] and (a[1] + b[1]) % self.FIELD == 0:
            return None
        slope = (3 * a[0]**2 * pow(2 * a[1], -1, self.FIELD) if a == b else (b[1] - a[1]) * pow(b[0] - a[0], -1, self.FIELD))
        x = (slope**2 - a[0] - b[0]) % self.FIELD
        return x, (slope * (a[0] - x) - a[1]) % self.FIELD

    def times(self, n, point):
        result = None
        while n:
            result = self.plus(result, point) if n & 1 else result
            point, n = self.plus(point, point), n >> 1
        return result

    def compressed(self, point):
        return bytes([2 + point[1] % 2]) + point[0].to_bytes(32, "big")

    def exactly(self, n):
        data = b""
        while len(data) < n:
            part = self.socket.recv(n - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def say(self, kind, number=0, payload=b""):
        self.socket.sendall(self.sending.update(struct.pack(">BIH", kind, number, len(payload)) + payload))

    def hear(self):
        kind, number, size = struct.unpack(">BIH", self.receiving.update(self.exactly(7)))
        return kind, number, self.receiving.update(self.exactly(size))

    def ask(self, token, name):
        """The answer to the name."""
        self.say(7, payload=token.encode())
        assert self.hear() == (0, 0, b"")
        self.say(2, payload=name.encode())
        answer = self.hear()
        if answer[0] == 0:
            self.say(3)
        return answer

    def serve_one(self, banner, answer):
        """A visitor is told of, hears the banner, says something, and hears the answer."""
        kind, number, data = self.hear()
        assert (kind, data) == (4, b"")
        self.say(4, number, banner)
        kind, again, data = self.hear()
        assert (kind, again) == (4, number)
        self.say(4, number, answer + data)
        self.say(5, number)


def test_an_agent_of_version_1_is_served_only_with_allow_v1_and_a_warning_that_says_why(gate):
    with pytest.raises(ConnectionError):
        AgentOfVersion1(gate.alice, (gate.host.ip, 20000))
    gate.node.program.wait_for_log("version 1 of the protocol, which is let in with allow_v1 only", 5)
    gate.node.kill()
    gate.node.launcher = ()
    gate.node.program = gate.host.start([*gate.node.argv, "--allow-v1"], name="p2pnode-v1")
    wait_until(gate.node.answers, 10, "p2pnode answers")
    gate.node.program.wait_for_log("whoever hears one reads the token", 5)
    assert gate.info()["protocols"] == ["diglett/2", "diglett/1"]
    agent = AgentOfVersion1(gate.alice, (gate.host.ip, 20000))
    assert agent.ask("another-token", "web") == (1, 0, b"the token is not valid for this name")
    agent = AgentOfVersion1(gate.alice, (gate.host.ip, 20000))
    assert agent.ask(TOKEN, "web") == (0, 0, b"")
    gate.node.program.wait_for_log("the agent of web.apps.demo.*speaks version 1: .*same keystream", 5)
    with gate.visit("web") as visitor:
        thread = threading.Thread(target=agent.serve_one, args=(b"first ", b"heard "))
        thread.start()
        assert visitor.recv(6, socket.MSG_WAITALL) == b"first "
        visitor.sendall(b"hello")
        assert b"".join(iter(lambda: visitor.recv(100), b"")) == b"heard hello"
        thread.join()
    [listed] = json.loads(gate.node.ctl("diglett", "--json").stdout)["server"]["agents"]
    assert listed["version"] == 1 and "(version 1, unsafe)" in gate.node.ctl("diglett").stdout
    wait_until(lambda: gate.figure("agents_v1_total") == 1, 5, "it is counted")
    agent.socket.close()
    wait_until(lambda: gate.told()[-1] == "remove web.apps.demo", 10, "its end is told to the gateway")


class Members:
    """The relay of a network is the diglett server, and alice, who comes with its certificate, the agent."""

    def __init__(self, lab, build):
        self.overlay = Overlay(lab, build, members=("alice",))
        self.gate, self.alice = self.overlay.relay, self.overlay.nodes["alice"]
        gate, alice = self.gate, self.alice
        gate.config.write_text(gate.config.read_text() + "[diglett]\ninfo = 127.0.0.1:20080\n")
        gate.kill()
        gate.start()
        key = json.loads(gate.host.run(["curl", "-sS", "http://127.0.0.1:20080/info"]).stdout)["publicKey"]
        alice.config.write_text(alice.config.read_text() + f"""
[diglett-agent]
server = {gate.host.ip}:20000
server_key = {key}
expose = app.demo 127.0.0.1:8001
""")
        alice.kill()
        alice.start()
        alice.program.wait_for_log("this node is no member of a network", 15)
        self.overlay.join()
        serve(alice.host, 8001, page)
        alice.program.wait_for_log("no name is granted to a node", 30)
        assert self.agents() == []

    def agents(self):
        return json.loads(self.gate.ctl("diglett", "--json").stdout)["server"]["agents"]

    def grant(self):
        """The agent that comes of it."""
        self.overlay.control.admin("host", "add", "alice", "app.demo")
        [agent] = wait_until(self.agents, 60, "alice is let in")
        return agent

    def get(self, agent):
        return self.gate.host.run(["curl", "-sS", f"http://127.0.0.1:{agent['ports'][0]['port']}/"]).stdout


@pytest.fixture
def members(lab, build):
    return Members(lab, build)


def test_a_member_shows_its_certificate_and_may_have_what_is_granted_to_it(members):
    """An admin grants and takes back, and removes the member."""
    admin = members.overlay.control.admin
    agent = members.grant()
    assert agent["node"] == "alice" and "token" not in agent
    assert "node alice" in members.gate.ctl("diglett").stdout
    assert members.get(agent) == "hello\n"
    admin("host", "remove", "alice", "app.demo")
    wait_until(lambda: not members.agents(), 5, "the grant that was taken back ends the agent")
    members.grant()
    admin("node", "remove", "alice")
    wait_until(lambda: not members.agents(), 5, "who is no member any more is ended")


def test_members_stay_and_are_let_in_when_the_interface_is_made_again_without_control(members):
    agent = members.grant()
    members.overlay.control.kill()
    members.gate.wait_for(lambda s: not s["control"]["connected"], "control is gone")
    n = members.gate.program.output().count("member of ")
    members.gate.host.run(["ip", "link", "delete", "p2p0"])
    wait_until(lambda: members.gate.program.output().count("member of ") > n, 15, "the interface is there again")
    members.alice.kill()
    wait_until(lambda: not members.agents(), 15, "alice is gone")
    assert "is valid no more" not in members.gate.program.output()  # it was not ended before
    members.alice.start()
    [again] = wait_until(members.agents, 15, "alice is let in by the map that the gate has")
    assert again["node"] == agent["node"] and members.get(again) == "hello\n"
