"""webgw: agents of the original subscribe to a host and dial back for each visitor.

      control    relay (public node, front door, webgw)    outside: visitors    agents
         |          |                                          |                  |
      ---+----------+---------- internet 198.51.100.0/24 ------+------------------+---

tests/unit/webgw has the rules one by one; here a client made from the protocol's text keeps them with p2pnode.
"""

import hashlib
import json
import os
import pathlib
import re
import socket
import ssl
import stat
import struct
import subprocess
import threading
import time

import pytest

import web
from lab import LabError, wait_until
from overlay import Node, Overlay
from webgw import Agent, TlsAgent

SECRET = b"0" * 32
REQUEST = b"GET / HTTP/1.1\r\nHost: WWW.Example.com:80\r\n\r\n"


def make_town(lab, build, members=(), internet=()):
    overlay = Overlay(lab, build, members=members, internet=internet)
    overlay.relay.config.write_text(overlay.relay.config.read_text() + f"""tls_port = 9443
metrics = 127.0.0.1:9100

[frontdoor]
listen = 80, 443
host = door.example.com 127.0.0.1:8080

[webgw]
listen = 9080
allow_plaintext = yes
host = www.example.com {hashlib.sha256(SECRET).hexdigest()}
""")
    overlay.relay.kill()
    overlay.relay.start()
    overlay.join()
    overlay.outside = lab.host("outside", overlay.internet)
    overlay.agents = lab.host("agents", overlay.internet)
    return overlay


@pytest.fixture
def town(lab, build):
    return make_town(lab, build)


def subscribed(town, **how):
    agent = Agent(town.agents, town.relay.host.ip, **how)
    answer = agent.register("www.example.com", SECRET)
    assert answer["jsonrpc"] == "2.0" and isinstance(answer["result"], int), answer
    return agent


def visit(town, first, port=80, outside=None, visitor=None):
    visitor = visitor or (outside or town.outside).socket(kind=socket.SOCK_STREAM)
    visitor.settimeout(20)
    visitor.connect((town.relay.host.ip, port))
    visitor.sendall(first)
    return visitor


def read(end, n):
    got = b""
    while len(got) < n:
        piece = end.recv(n - len(got))
        if not piece:
            raise LabError(f"ended after {got!r}")
        got += piece
    return got


def hears_reset(end):
    """Without a byte before."""
    with pytest.raises(ConnectionResetError):
        raise LabError(f"heard {end.recv(1)!r}")
    end.close()
    return True


def drops(town, what):
    return int(town.relay.status()["drops"].get(what, 0))


def is_dropped(town, what, n):
    """Counters are published a moment after what they count."""
    wait_until(lambda: drops(town, f"front door: {what}") == n, 10, f"{n} times {what}")


def client_hello(host="www.example.com"):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def passes(visitor, caller, first):
    """Both ways, and both ends."""
    assert read(caller, len(first)) == first
    caller.sendall(b"answer")
    assert read(visitor, 6) == b"answer"
    visitor.sendall(b"more")
    assert read(caller, 4) == b"more"
    visitor.shutdown(socket.SHUT_WR)
    assert caller.recv(1) == b""
    caller.close()
    assert visitor.recv(1) == b""
    visitor.close()
    return True


def test_an_original_agent_serves_visitors_of_http_and_tls(town):
    agent = subscribed(town)
    for first, port in ((REQUEST, 80), (client_hello(), 443)):
        visitor = visit(town, first, port)
        told = agent.next_visit()
        assert told["port"] == port and told["host"] == "www.example.com" and len(told["secret"]) == 64
        caller = agent.dial_back(told, pieces=4)
        assert passes(visitor, caller, first)
        assert hears_reset(agent.dial_back(told))  # a secret is for once
    assert hears_reset(agent.dial_back({**told, "secret": "00" * 32}))
    is_dropped(town, "dialled back too late", 2)
    is_dropped(town, "dialled back with a wrong secret", 1)


def test_what_a_visitor_sends_in_two_pieces_comes_to_an_agent_whole(town):
    agent = subscribed(town)
    for first, port in ((REQUEST, 80), (client_hello(), 443)):
        visitor = visit(town, first[:20], port)
        time.sleep(0.2)  # the door reads that alone; nothing that is counted tells when
        visitor.sendall(first[20:])
        told = agent.next_visit()
        assert told["port"] == port and told["host"] == "www.example.com"
        assert passes(visitor, agent.dial_back(told), first)


def passes_in_tls(visitor, caller, first):
    """Both ways; the end of one of them, and a reset of the other."""
    assert read(caller, len(first)) == first
    caller.sendall(b"answer")
    assert read(visitor, 6) == b"answer"
    much = bytes(range(256)) * 4096
    visitor.setblocking(True)
    pump = threading.Thread(target=visitor.sendall, args=(much,))
    pump.start()
    assert read(caller, len(much)) == much
    pump.join()
    visitor.shutdown(socket.SHUT_WR)
    assert caller.recv(1) == b""  # TLS's goodbye
    caller.sendall(much)
    assert read(visitor, len(much)) == much
    caller = caller.unwrap()
    assert visitor.recv(1) == b""
    return True


def test_an_agent_in_tls_is_told_and_dials_back_within_tls(town):
    agent = TlsAgent(town.agents, town.relay.host.ip)
    assert "result" in agent.register("www.example.com", SECRET)
    assert agent.register("www.example.com", b"1" * 32)["error"]["code"] == -20001
    told = None
    for first, port in ((REQUEST, 80), (client_hello(), 443)):
        visitor = visit(town, first, port)
        told = agent.next_visit()
        assert told["port"] == port and told["serverListeningPort"] == 4659
        assert passes_in_tls(visitor, agent.dial_back(told, pieces=4), first)
    late = agent.dial_back(told)  # a secret is for once
    with pytest.raises((ConnectionResetError, ssl.SSLError)):
        raise LabError(f"heard {late.recv(1)!r}")
    visitor = visit(town, REQUEST)
    caller = agent.dial_back(agent.next_visit())
    assert read(caller, len(REQUEST)) == REQUEST
    caller.close()  # without a goodbye: killed
    assert hears_reset(visitor)
    visitor = visit(town, REQUEST)
    caller = agent.dial_back(agent.next_visit())
    assert read(caller, len(REQUEST)) == REQUEST
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.close()
    with pytest.raises((ConnectionResetError, ssl.SSLError)):
        raise LabError(f"heard {caller.recv(1)!r}")
    silent = town.agents.socket(kind=socket.SOCK_STREAM)
    silent.settimeout(20)
    silent.connect((town.relay.host.ip, 4659))
    assert silent.recv(1) == b""  # five seconds for all
    wait_until(lambda: drops(town, "webgw: dialled back in TLS and told no secret") == 1, 10, "that it is counted")


def test_a_member_needs_no_secret_for_what_is_granted_to_it(lab, build):
    town = make_town(lab, build, members=("alice",))
    alice, files = town.nodes["alice"], []
    membership = json.loads((alice.state / "membership.json").read_text())
    membership = next(m for m in (membership, *membership.values()) if isinstance(m, dict) and "certificate" in m)
    for name, text in (("certificate.pem", membership["certificate"]), ("key.pem", (alice.state / "identity.key").read_text())):
        files.append(alice.state / name)
        files[-1].write_text(text)
    agent = TlsAgent(town.agents, town.relay.host.ip, certificate=files)

    def register(host):
        return agent.ask("webgw_registerClient", {"host": host})

    assert register("app.example.com")["error"]["code"] == -20000
    assert Agent(town.agents, town.relay.host.ip).ask("webgw_registerClient",
                                                      {"host": "app.example.com"})["error"]["code"] == -32602
    town.control.admin("host", "add", "alice", "app.example.com")
    town.control.admin("host", "add", "alice", "www.example.com")

    def granted():
        attempt = TlsAgent(town.agents, town.relay.host.ip, certificate=files)
        return attempt if "result" in attempt.ask("webgw_registerClient", {"host": "app.example.com"}) else attempt.close()

    agent = wait_until(granted, 15, "that it is granted")
    assert register("www.example.com")["error"]["code"] == -20001  # that has a secret
    first = REQUEST.replace(b"WWW.Example.com", b"app.example.com")
    for _ in range(2):
        visitor = visit(town, first)
        assert passes_in_tls(visitor, agent.dial_back(agent.next_visit()), first)

    def is_refused(first=first):
        visitor = visit(town, first)
        try:
            visitor.settimeout(1)
            visitor.recv(1)
        except ConnectionResetError:
            return True
        except TimeoutError:
            waiting.append(visitor)
        return False

    waiting = []
    town.control.admin("host", "add", "alice", "app2.example.com")
    wait_until(lambda: "result" in register("app2.example.com"), 15, "that it is granted")
    for _ in range(50):  # as fast as it can: the last word holds
        assert agent.ask("webgw_unregisterClient", [register("app2.example.com")["result"]])["result"] is True
    assert is_refused(first.replace(b"app.", b"app2."))
    assert "result" in register("app2.example.com")
    other = first.replace(b"app.", b"app2.")
    wait_until(lambda: not is_refused(other), 15, "that its visitors are led to it")
    assert passes_in_tls(waiting[-1], agent.dial_back(agent.next_visit()), other)
    town.control.admin("host", "remove", "alice", "app.example.com")
    wait_until(is_refused, 15, "that nobody serves it any more")


def test_agents_of_a_host_share_its_visitors_and_are_let_go(town):
    assert hears_reset(visit(town, REQUEST))  # nobody has subscribed
    first, second = subscribed(town), subscribed(town)
    assert first.register("www.example.com", b"1" * 32)["error"]["code"] == -20001
    assert first.register("other.example.com", SECRET)["error"]["code"] == -20000
    assert first.register("www.example.com", b"short")["error"]["code"] == -32602
    for agent in (first, second, first, second):
        visitor = visit(town, REQUEST)
        assert passes(visitor, agent.dial_back(agent.next_visit()), REQUEST)
    first.close()
    log = town.relay.program
    wait_until(lambda: "an agent is gone" in log.output(), 10, "that the first is gone")
    for _ in range(2):
        visitor = visit(town, REQUEST)
        told = second.next_visit()
        assert passes(visitor, second.dial_back(told), REQUEST)


def test_a_visitor_waits_five_seconds_for_its_agent(town):
    """Others do not wait with it; and a secret that is late is worth nothing."""
    agent = subscribed(town)
    waiting = visit(town, REQUEST)
    late = agent.next_visit()
    caller = town.agents.socket(kind=socket.SOCK_STREAM)
    caller.connect((town.relay.host.ip, late["serverListeningPort"]))  # and says nothing
    visitor = visit(town, REQUEST)
    assert passes(visitor, agent.dial_back(agent.next_visit()), REQUEST)
    assert hears_reset(waiting)
    assert hears_reset(agent.dial_back(late))
    caller.settimeout(20)
    assert hears_reset(caller)
    is_dropped(town, "no agent dialled back", 1)


def test_one_source_cannot_take_all_of_an_agent_nor_make_it_suspect(town):
    """64 of one source wait at most, also when they leave again; the agent's late secrets are no guesses."""
    agent = subscribed(town)
    other = town.lab.host("other", town.internet)
    ready = [town.outside.socket(kind=socket.SOCK_STREAM) for _ in range(90)]  # so that all come in less than five seconds
    for visitor in ready[:40]:
        visit(town, REQUEST, visitor=visitor).close()  # the agent was told all the same
    stay = [visit(town, REQUEST, visitor=visitor) for visitor in ready[40:]]
    told = [agent.next_visit() for _ in range(64)]
    is_dropped(town, "too many wait of one source", 26)
    visitor = visit(town, REQUEST, outside=other)
    assert passes(visitor, agent.dial_back(agent.next_visit()), REQUEST)
    for late in stay:  # the last of whom has waited for as long as those who left could have
        assert hears_reset(late)
    for late in told:
        assert hears_reset(agent.dial_back(late))
    is_dropped(town, "dialled back too late", 64)
    assert drops(town, "front door: dialled back with a wrong secret") == 0
    visitor = visit(town, REQUEST)  # its places are its own again
    assert passes(visitor, agent.dial_back(agent.next_visit()), REQUEST)


def test_who_guesses_secrets_does_not_shut_out_an_agent_of_its_address(town):
    agent = subscribed(town)
    for _ in range(40):
        assert hears_reset(agent.dial_back({"secret": "5a" * 32, "serverListeningPort": 4658}))
    silent = [town.agents.socket(kind=socket.SOCK_STREAM) for _ in range(20)]
    for caller in silent:
        caller.settimeout(2)
        caller.connect((town.relay.host.ip, 4658))
    assert hears_reset(silent[0])  # before its three seconds: a source that guesses has few places
    visitor = visit(town, REQUEST)
    assert passes(visitor, agent.dial_back(agent.next_visit(), pieces=4), REQUEST)


def test_silent_connections_of_agents_make_room(town):
    """Of one address 64 at most; the oldest goes, whether it has asked for a WebSocket or not."""
    agent = subscribed(town)
    idle = [Agent(town.outside, town.relay.host.ip) for _ in range(3)]
    silent = []
    for _ in range(64):
        silent.append(town.outside.socket(kind=socket.SOCK_STREAM))
        silent[-1].connect((town.relay.host.ip, 9080))
    for connection in idle:
        connection.socket.settimeout(5)
        with pytest.raises(LabError, match="ended"):
            connection.read_message()
    wait_until(lambda: drops(town, "webgw: made room before it subscribed") == 3, 10, "that three made room")
    for connection in silent:  # and the others have ten seconds in all
        connection.settimeout(20)
        assert connection.recv(1) == b""
    visitor = visit(town, REQUEST)
    assert passes(visitor, agent.dial_back(agent.next_visit()), REQUEST)


def test_an_agent_that_does_not_read_is_passed_over_and_ended(town):
    deaf, agent = subscribed(town, receive_buffer=2304), subscribed(town)
    sources = [town.outside] + [town.lab.host(f"source{i}", town.internet) for i in range(5)]
    deadline = time.monotonic() + 60
    while drops(town, "webgw: agents ended that did not read") == 0:
        assert time.monotonic() < deadline, "it was never ended"
        for source in sources:
            for _ in range(20):
                visit(town, REQUEST, outside=source).close()
    agent.close()
    agent = subscribed(town)  # has all
    for _ in range(3):
        visitor = visit(town, REQUEST, outside=town.lab.host(f"late{_}", town.internet))
        assert passes(visitor, agent.dial_back(agent.next_visit()), REQUEST)
    deaf.close()


class Admin:
    """curl at the Unix socket of webgw's HTTP interface."""

    def __init__(self, node):
        self.node, self.socket = node, node.socket_path.parent / "webgw.sock"

    def ask(self, method, path, body=None, options=()):
        """The status, and what is answered."""
        argv = ["curl", "--silent", "--show-error", "--unix-socket", str(self.socket), "-X", method, "-w", "\n%{http_code}",
                *options, f"http://localhost{path}"]
        if body is not None:
            argv += ["-H", "Content-Type: application/json", "-d", body if isinstance(body, str) else json.dumps(body)]
        text, status = self.node.host.run(argv).stdout.rsplit("\n", 1)
        return int(status), json.loads(text) if text else None


def test_hosts_are_added_listed_and_removed_by_http(town):
    """As the original's interface does it; whose socket is the owner's alone."""
    admin, secret = Admin(town.relay), b"1" * 32
    digest = hashlib.sha256(secret).hexdigest()
    assert stat.S_IMODE(admin.socket.stat().st_mode) == 0o600
    status, hosts = admin.ask("GET", "/api/v1/proxy")
    assert status == 200 and [host["host"] for host in hosts] == ["www.example.com"]
    assert hosts[0]["hexSecretHash"] == hashlib.sha256(SECRET).hexdigest() and hosts[0]["read"] == 0

    agent = subscribed(town)
    assert agent.register("new.example.com", secret)["error"]["code"] == -20000
    new = {"host": "New.example.com", "hexSecretHash": digest}
    assert admin.ask("POST", "/api/v1/proxy", new)[0] == 200
    assert admin.ask("POST", "/api/v1/proxy", new)[0] == 200  # again: the same
    status, why = admin.ask("POST", "/api/v1/proxy", {**new, "hexSecretHash": "00" * 32})
    assert status == 409 and "another hash" in why["error"]
    status, why = admin.ask("POST", "/api/v1/proxy", {**new, "host": "door.example.com"})
    assert status == 409 and "[frontdoor]" in why["error"]
    assert "result" in agent.register("new.example.com", secret)

    first = REQUEST.replace(b"WWW.Example.com", b"new.example.com")
    assert passes(visit(town, first), agent.dial_back(agent.next_visit()), first)
    wait_until(lambda: admin.ask("GET", "/api/v1/proxy/new.example.com")[1]["read"] == 6, 10, "that bytes are counted")
    status, host = admin.ask("GET", "/api/v1/proxy/new.example.com")
    assert host["written"] == len(first) + 4 and host["visitors"] == 1 and host["clients"] == 1
    clients = admin.ask("GET", "/api/v1/clients")[1]
    assert [(client["host"], client["dialled"]) for client in clients] == [("www.example.com", 0), ("new.example.com", 1)]
    assert clients[0]["address"].startswith(town.agents.ip)

    visitor = visit(town, first)
    caller = agent.dial_back(agent.next_visit())
    assert read(caller, len(first)) == first
    waiting = visit(town, first)
    agent.next_visit()
    assert admin.ask("DELETE", "/api/v1/proxy/new.example.com")[0] == 200
    assert hears_reset(visitor) and hears_reset(caller) and hears_reset(waiting)  # its live connections end
    assert hears_reset(visit(town, first))
    assert admin.ask("DELETE", "/api/v1/proxy/new.example.com") == (204, None)
    assert admin.ask("GET", "/api/v1/proxy/new.example.com")[0] == 404
    assert passes(visit(town, REQUEST), agent.dial_back(agent.next_visit()), REQUEST)  # the other host stays
    is_dropped(town, "their host was taken away", 2)
    town.relay.kill()
    assert town.relay.start()  # over a socket that was left behind
    status, hosts = admin.ask("GET", "/api/v1/proxy")
    assert status == 200 and [host["host"] for host in hosts] == ["www.example.com"]


def test_hosts_that_were_added_are_there_again_after_a_restart(town):
    """Who configures nothing else loses nothing; what cannot be read is kept, and nothing is added over it."""
    admin, digest = Admin(town.relay), hashlib.sha256(b"1" * 32).hexdigest()
    for host in ("new.example.com", "gone.example.com", "*.new.example.com"):
        assert admin.ask("POST", "/api/v1/proxy", {"host": host, "hexSecretHash": digest, "balance": "round-robin"})[0] == 200
    assert admin.ask("DELETE", "/api/v1/proxy/gone.example.com")[0] == 200
    kept = town.relay.state / "webgw-hosts"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    town.relay.kill()  # without a word of goodbye
    town.relay.start()
    wait_until(lambda: admin.socket.exists(), 10, "webgw's socket")
    hosts = {host["host"]: host["balance"] for host in admin.ask("GET", "/api/v1/proxy")[1]}
    assert hosts == {"www.example.com": "least-connections", "new.example.com": "round-robin",
                     "*.new.example.com": "round-robin"}
    agent = Agent(town.agents, town.relay.host.ip)
    assert "result" in agent.register("new.example.com", b"1" * 32)
    first = REQUEST.replace(b"WWW.Example.com", b"new.example.com")
    wait_until(lambda: town.relay.status()["state"] == "running", 10, "that it is a member again")
    assert passes(visit(town, first), agent.dial_back(agent.next_visit()), first)
    kept.write_text(kept.read_text()[:-5])
    town.relay.kill()
    town.relay.start()
    status, why = admin.ask("POST", "/api/v1/proxy", {"host": "more.example.com", "hexSecretHash": digest})
    assert status == 500 and "webgw-hosts" in why["error"]
    assert [host["host"] for host in admin.ask("GET", "/api/v1/proxy")[1]] == ["www.example.com"]
    assert "new.example.com" in kept.read_text()


def test_the_next_visitor_is_for_the_agent_with_the_fewest(town):
    first, second = subscribed(town), subscribed(town)
    long = [visit(town, REQUEST)]
    callers = [first.dial_back(first.next_visit())]
    admin = Admin(town.relay)

    def opens():
        return [client["open"] for client in admin.ask("GET", "/api/v1/clients")[1]]

    wait_until(lambda: sorted(opens()) == [0, 1], 10, "that it is open")
    for _ in range(3):  # over at once, one after the other
        assert passes(visit(town, REQUEST), second.dial_back(second.next_visit()), REQUEST)
        wait_until(lambda: sorted(opens()) == [0, 1], 10, "that it is over")
    callers[0].close()
    long[0].close()
    wait_until(lambda: opens() == [0, 0], 10, "that nothing is open")


def test_what_is_no_request_is_answered_with_what_is_wrong(town):
    admin = Admin(town.relay)
    for method, path, body, expected in (
            ("GET", "/", None, 404), ("PUT", "/api/v1/proxy", "{}", 405), ("POST", "/api/v1/proxy", "no", 400),
            ("POST", "/api/v1/proxy", {"host": "a.example", "hexSecretHash": "12"}, 400),
            ("POST", "/api/v1/proxy", "x" * 1025, 413), ("DELETE", "/api/v1/proxy/10.0.0.1", None, 404)):
        status, answer = admin.ask(method, path, body)
        assert status == expected and answer["error"], (method, path, status)
    status, answer = admin.ask("POST", "/api/v1/proxy", "{}", ["-H", "Transfer-Encoding: chunked"])
    assert status == 400
    status, answer = admin.ask("GET", "/api/v1/proxy", None, ["-H", "X: " + "a" * 5000])
    assert status == 431
    silent = [socket.socket(socket.AF_UNIX) for _ in range(16)]
    for connection in silent:
        connection.settimeout(20)
        connection.connect(str(admin.socket))
    assert silent[0].recv(1) == b""  # five seconds each
    wait_until(lambda: admin.ask("GET", "/api/v1/proxy")[0] == 200, 10, "that it answers again")


def test_a_host_of_webgw_is_not_a_members_to_take(lab, build):
    """Whoever has been granted its name: the node's configuration goes before what members publish."""
    town = make_town(lab, build, members=("alice",))
    alice = town.nodes["alice"]
    town.control.admin("host", "add", "alice", "*.example.com")
    alice.ctl("expose", "http://www.example.com", "8080")
    alice.ctl("expose", "http://other.example.com", "8080")
    other = REQUEST.replace(b"WWW", b"other")

    web.Web(alice, "alice's\n", address="127.0.0.1")

    def is_led():
        """other.example.com, to alice; then www.example.com, which she published before it, is known as well."""
        visitor = visit(town, other)
        try:
            return visitor.recv(4) == b"HTTP"
        except ConnectionResetError:
            return False

    wait_until(is_led, 15, "that what alice publishes is known")
    agent = subscribed(town)
    for _ in range(3):
        visitor = visit(town, REQUEST)
        assert passes(visitor, agent.dial_back(agent.next_visit()), REQUEST)


def start_agent(town, extra="", secret=SECRET, port=9081, name=None, host=None, expose="www.example.com 127.0.0.1:8080",
                leads="www.example.com leads to 127.0.0.1:8080"):
    """p2pnode as an agent, on a host that is no member."""
    host = host or town.agents
    town.relay.program.wait_for_log("this node's pin is", 15)
    pin = re.search(r"this node's pin is (\S+)", town.relay.program.output())[1]
    (host.folder / "secret").write_text(secret.hex() + "\n")
    (host.folder / "secret").chmod(0o600)
    launcher = ()
    if name:
        names = town.agents.folder / "hosts"
        names.write_text(f"127.0.0.1 localhost\n{town.relay.host.ip} {name}\n")
        launcher = ("unshare", "--mount", "sh", "-c", f'mount --bind {names} /etc/hosts && exec "$@"', "sh")
    node = Node(town.build, host, launcher=launcher, config=f"""
[webgw-agent]
server = {name or town.relay.host.ip}:{port}
server_pin = {pin}
secret_file = {host.folder / "secret"}
expose = {expose}
{extra}""").start()
    node.program.wait_for_log(leads, 15)
    return node


def listening(town, port=8080, host=None):
    target = (host or town.agents).socket(kind=socket.SOCK_STREAM)
    target.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    target.bind(("127.0.0.1", port))
    target.listen(64)
    target.settimeout(20)
    return target


def accept(target):
    carried = target.accept()[0]
    carried.settimeout(20)
    return carried


def accept_who_speaks(target):
    """Not the agent's own try whether the target is there, which it makes when a visitor broke without an answer."""
    while True:
        carried = accept(target)
        if carried.recv(1, socket.MSG_PEEK):
            return carried
        carried.close()


def passes_through(visitor, carried, first):
    assert read(carried, len(first)) == first
    carried.sendall(b"answer")
    assert read(visitor, 6) == b"answer"
    much = bytes(range(256)) * 8192
    pump = threading.Thread(target=visitor.sendall, args=(much,))
    pump.start()
    assert read(carried, len(much)) == much
    pump.join()
    visitor.shutdown(socket.SHUT_WR)
    assert carried.recv(1) == b""
    carried.sendall(much)
    assert read(visitor, len(much)) == much
    carried.close()
    assert visitor.recv(1) == b""
    visitor.close()
    return True


def test_our_own_agent_carries_visitors_and_resets(town):
    start_agent(town, "warm = 0\n")
    target = listening(town)
    for first, port in ((REQUEST, 80), (client_hello(), 443)):
        visitor = visit(town, first, port)
        assert passes_through(visitor, accept(target), first)
    visitor = visit(town, REQUEST)
    carried = accept(target)
    assert read(carried, len(REQUEST)) == REQUEST
    carried.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    carried.close()
    assert hears_reset(visitor)
    target.close()  # nobody is there
    assert hears_reset(visit(town, REQUEST))


@pytest.mark.parametrize("warm", [0, 1])
def test_http_and_https_of_a_host_may_go_to_two_targets_of_our_own_agent(town, warm):
    node = start_agent(town, f"expose = https://www.example.com 127.0.0.1:8443\nwarm = {warm}\n",
                       expose="http://www.example.com 127.0.0.1:8080",
                       leads="www.example.com leads to http://127.0.0.1:8080 https://127.0.0.1:8443")
    hello = client_hello()
    targets = {80: (listening(town, 8080), REQUEST), 443: (listening(town, 8443), hello)}
    for port in (80, 443, 80):
        wait_until(lambda: warm_now(town) == warm, 15, "that one is warm")
        target, first = targets[port]
        assert passes_through(visit(town, first, port), accept(target), first)
    assert [host["target"] for host in node.status()["webgw_agent"]["hosts"]] == [
        "http://127.0.0.1:8080 https://127.0.0.1:8443"]


def test_who_comes_by_a_scheme_that_is_not_exposed_is_reset_and_costs_no_second_connection(town):
    node = start_agent(town, "warm = 1\nmetrics = 127.0.0.1:9100\n", expose="https://www.example.com 127.0.0.1:8443",
                       leads="www.example.com leads to https://127.0.0.1:8443")
    wait_until(lambda: warm_now(town) == 1, 15, "that one is warm")
    assert hears_reset(visit(town, REQUEST))
    wait_until(lambda: figure(node.host, 'agent_visitors_total{by="warm"}') == 1, 5, "that its connection was taken")
    assert figure(node.host, 'agent_visitors_total{by="new"}') == 0


def answering(target):
    """Each who comes to target is answered, until it is closed."""
    def serve():
        while True:
            try:
                carried = accept(target)
                if carried.recv(4096):
                    carried.sendall(b"answer")
                carried.close()
            except OSError:
                return
    target.settimeout(120)  # nobody may come for long
    threading.Thread(target=serve, daemon=True).start()


def is_served(town, first, port):
    visitor = visit(town, first, port)
    try:
        return visitor.recv(6) == b"answer"
    except ConnectionResetError:
        return False
    finally:
        visitor.close()


@pytest.mark.parametrize("warm, port", [(0, 80), (2, 80), (2, 443)])
def test_an_agent_whose_target_is_down_leaves_its_visitors_to_another(town, lab, warm, port):
    first = client_hello() if port == 443 else REQUEST
    start_agent(town, f"warm = {warm}\n")
    answering(listening(town))
    other = start_agent(town, f"warm = {warm}\n", host=lab.host("others", town.internet))
    wait_until(lambda: warm_now(town) == 2 * warm, 15, "that all are warm")

    def notices():
        is_served(town, first, port)
        return "nobody answers at 127.0.0.1:8080" in other.program.output()
    wait_until(notices, 15, "that the other notices")
    wait_until(lambda: other.status()["webgw_agent"]["hosts"][0]["state"] == "target down", 10, "that it says so")
    wait_until(lambda: warm_now(town) == warm, 15, "that those of the other are gone")
    assert all(is_served(town, first, port) for _ in range(20))
    if not warm:  # who serves nothing is not let stay
        wait_until(lambda: not other.status()["webgw_agent"]["connected"], 20, "that it is sent away")
    answering(listening(town, host=other.host))
    other.program.wait_for_log("somebody answers again", 15)
    wait_until(lambda: other.status()["webgw_agent"]["hosts"][0]["state"] == "subscribed", 10, "that it is back")
    assert all(is_served(town, first, port) for _ in range(4))


class Server:
    """What an agent by hand does with its visitors, until the agent is closed."""

    def __init__(self, agent, has_target):
        self.agent, self.has_target, self.n = agent, has_target, 0
        agent.socket.settimeout(120)  # nobody may come for long
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                caller = self.agent.dial_back(self.agent.next_visit())
                self.n += 1
                caller.recv(4096)
                if self.has_target:
                    caller.sendall(b"answer")
                if self.has_target or self.n % 2:
                    caller.close()
                else:
                    reset(caller)
        except (OSError, LabError):
            return

    def close(self):
        self.agent.socket.shutdown(socket.SHUT_RDWR)
        self.agent.close()


@pytest.mark.parametrize("kind, port", [(Agent, 80), (Agent, 443), (TlsAgent, 80)])
def test_visitors_are_led_away_from_an_agent_that_ends_them_without_a_byte(town, kind, port):
    """It dials back at once, and has no target: the original does not ask, and had the fewest visitors all the time."""
    first, admin = (client_hello() if port == 443 else REQUEST), Admin(town.relay)
    servers = []
    for has_target in (True, False):
        agent = kind(town.agents, town.relay.host.ip)
        assert "result" in agent.register("www.example.com", SECRET)
        servers.append(Server(agent, has_target))
    good, dead = servers

    def rest():
        return [client["resting"] for client in admin.ask("GET", "/api/v1/clients")[1]]

    served = [is_served(town, first, port) for _ in range(20)]
    assert 3 <= served.count(False) <= 4 and all(served[9:]), served  # one may come before the word of the third
    assert sorted(rest()) == [False, True]
    assert sorted(client["unanswered"] for client in admin.ask("GET", "/api/v1/clients")[1]) == [0, served.count(False)]
    assert dead.n == served.count(False) and good.n == served.count(True)
    good.close()
    wait_until(lambda: len(rest()) == 1, 10, "that the other is gone")
    assert not is_served(town, first, port)  # there is nobody else: it is told all the same
    dead.has_target = True
    assert is_served(town, first, port)
    wait_until(lambda: is_served(town, first, port) and rest() == [False], 10, "that it is forgiven")
    dead.close()


@pytest.mark.parametrize("warm", [0, 1])
def test_agents_dial_back_where_they_are_told_to(town, warm):
    """Other ports than the ordinary ones, at which nobody listens."""
    config = town.relay.config
    config.write_text(config.read_text() + "dial_back = 5000\ntls_dial_back = 5001\n")
    town.relay.kill()
    town.relay.start()
    agent = subscribed(town)
    visitor = visit(town, REQUEST)
    told = agent.next_visit()
    assert told["serverListeningPort"] == 5000 and passes(visitor, agent.dial_back(told), REQUEST)
    agent.close()
    start_agent(town, f"warm = {warm}\n")
    target, hello = listening(town), client_hello()
    for first, port in ((REQUEST, 80), (hello, 443)):
        wait_until(lambda: warm_now(town) == warm, 15, "that one is warm")
        assert passes_through(visit(town, first, port), accept(target), first)
    for port in (4658, 4659):
        with pytest.raises(ConnectionRefusedError):
            town.agents.socket(kind=socket.SOCK_STREAM).connect((town.relay.host.ip, port))


def test_a_secret_files_hash_is_made_as_the_manual_says(tmp_path):
    root = pathlib.Path(__file__).parents[2]
    recipe = "head -n 1 secret | tr -d '\\r\\n' | tr a-f A-F | basenc -d --base16 | sha256sum"
    manual = (root / "man/p2pnode.conf.5.scd").read_text().replace("\\\\", "\\").replace("\\-", "-")
    assert recipe in manual and recipe in (root / "docs/PROTOCOL-webgw.md").read_text()
    for secret, end in ((SECRET, "\n"), (bytes(range(256)), "\r\nand more\n"), (b"\xaf" * 32, "")):
        (tmp_path / "secret").write_text(secret.hex() + end)
        said = subprocess.run(["sh", "-c", recipe], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        assert said.split()[0] == hashlib.sha256(secret).hexdigest()


START, ALIVE, TAKEN = 1, b"\x00", b"\x01"


def warm(agent, subscription, n):
    """So many connections that are ready."""
    prepared = agent.ask("webgw_prepare", {"subscription": subscription, "count": n})["result"]
    return [agent.dial_back({**prepared, "secret": secret}) for secret in prepared["secrets"]]


def started(link, first, port=80):
    """What the node says when it claims it, and what the visitor sent first: its secret."""
    head = read(link, 36)
    assert head[0] == START and head[33:35] == struct.pack("!H", port)
    assert read(link, head[35]) == b"www.example.com"
    assert read(link, len(first)) == first
    return head[1:33].hex()


def figure(host, name):
    text = host.run(["curl", "-sS", "http://127.0.0.1:9100/metrics"]).stdout
    return next(int(line.split()[-1]) for line in text.splitlines() if line.startswith(f"p2pnode_webgw_{name} "))


def warm_now(town):
    return figure(town.relay.host, "warm")


def test_a_warm_connection_is_claimed_and_others_stay(town):
    agent = TlsAgent(town.agents, town.relay.host.ip)
    subscription = agent.register("www.example.com", SECRET)["result"]
    links = warm(agent, subscription, 2)
    wait_until(lambda: warm_now(town) == 2, 10, "that both are warm")
    links[1].sendall(ALIVE)
    time.sleep(0.3)  # that word is on its way; nothing tells when it is there
    visitor = visit(town, REQUEST)
    assert len(started(links[1], REQUEST)) == 64  # who was heard from last
    links[1].sendall(ALIVE + TAKEN + b"answer")
    assert read(visitor, 6) == b"answer"
    visitor.sendall(b"more")
    assert read(links[1], 4) == b"more"
    visitor.shutdown(socket.SHUT_WR)
    assert links[1].recv(1) == b""
    links[1].unwrap().close()
    assert visitor.recv(1) == b""
    large = REQUEST[:-2] + b"X: " + b"x" * 6000 + b"\r\n\r\n"  # more than goes with the start
    visitor = visit(town, large)
    started(links[0], large[:4096])
    links[0].sendall(TAKEN)
    assert read(links[0], len(large) - 4096) == large[4096:]
    links[0].close()
    assert hears_reset(visitor)
    assert not agent.told


def test_a_dead_warm_connection_costs_no_visitor(town):
    agent = TlsAgent(town.agents, town.relay.host.ip)
    subscription = agent.register("www.example.com", SECRET)["result"]
    broken, silent, late, wrong = warm(agent, subscription, 4)
    wait_until(lambda: warm_now(town) == 4, 10, "that all are warm")
    for link in (wrong, late, silent, broken):
        link.sendall(ALIVE)
        time.sleep(0.3)
    broken.close()  # that is seen: it is never handed to anybody
    wait_until(lambda: warm_now(town) == 3, 10, "that one is gone")
    for link in (silent, late, wrong):  # the one heard from last first
        visitor = visit(town, REQUEST)
        secret = started(link, REQUEST)
        if link is wrong:
            link.sendall(b"\x07")
        told = agent.next_visit()
        assert told["secret"] == secret
        if link is late:  # and yet alive: whichever comes first
            link.sendall(TAKEN + b"answer")
            assert read(visitor, 6) == b"answer"
            continue
        assert passes_in_tls(visitor, agent.dial_back(told), REQUEST)
    wait_until(lambda: drops(town, "webgw: visitors not taken by a warm connection") == 3, 10, "that they are counted")


def test_warm_connections_are_bounded_and_their_agents_own(town):
    agent, other = (TlsAgent(town.agents, town.relay.host.ip) for _ in range(2))
    subscription = agent.register("www.example.com", SECRET)["result"]
    plain = subscribed(town)
    params = {"subscription": subscription, "count": 8}
    assert other.ask("webgw_prepare", params)["error"]["code"] == -32012
    assert plain.ask("webgw_prepare", params)["error"]["code"] == -32601
    assert agent.ask("webgw_prepare", {**params, "count": 9})["error"]["code"] == -32602
    prepared = [agent.ask("webgw_prepare", params)["result"] for _ in range(3)]
    assert [len(p["secrets"]) for p in prepared] == [8, 8, 0]
    link = agent.dial_back({**prepared[0], "secret": prepared[0]["secrets"][0]})
    link.sendall(ALIVE)
    again = agent.dial_back({**prepared[0], "secret": prepared[0]["secrets"][0]})  # a secret is for once
    with pytest.raises((ConnectionResetError, ssl.SSLError)):
        raise LabError(f"heard {again.recv(1)!r}")
    wait_until(lambda: len(agent.ask("webgw_prepare", params)["result"]["secrets"]) == 8, 10, "that late ones are forgotten")
    agent.close()  # with it goes what is warm
    with pytest.raises((ConnectionResetError, ssl.SSLError)):
        raise LabError(f"heard {link.recv(1)!r}")


def test_our_own_agent_keeps_connections_warm(town):
    node = start_agent(town, "warm = 2\nmetrics = 127.0.0.1:9100\n")
    target = listening(town)
    wait_until(lambda: warm_now(town) == 2, 15, "that two are warm")
    visitors = [visit(town, REQUEST) for _ in range(2)]
    carried = [accept(target) for _ in visitors]
    wait_until(lambda: warm_now(town) == 2, 15, "that it is refilled")
    for link in carried:
        assert read(link, len(REQUEST)) == REQUEST
        link.sendall(b"answer")
    for visitor in visitors:  # whose is whose nobody says
        assert read(visitor, 6) == b"answer"
    for link in carried:
        link.close()
    for visitor in visitors:
        assert visitor.recv(1) == b""
        visitor.close()
    assert passes_through(visit(town, REQUEST), accept(target), REQUEST)
    assert drops(town, "webgw: visitors not taken by a warm connection") == 0
    wait_until(lambda: figure(node.host, 'agent_visitors_total{by="warm"}') == 3, 10, "that all came by warm ones")
    assert [figure(node.host, f"agent_{name}") for name in ('visitors_total{by="new"}', "told_twice_total",
                                                            "subscriptions")] == [0, 0, 1]
    assert node.host.run(["curl", "-sS", "http://127.0.0.1:9100/healthz"]).stdout == "ok\n"
    visitor = visit(town, REQUEST)
    carried = accept(target)
    told = {"host": "www.example.com", "target": "127.0.0.1:8080", "state": "subscribed", "warm": 2, "visitors_now": 1}
    wait_until(lambda: node.status()["webgw_agent"] == {"server": f"{town.relay.host.ip}:9081", "connected": True,
                                                        "hosts": [told]}, 20, lambda: str(node.status()["webgw_agent"]))
    carried.close()
    visitor.close()
    node.program.kill()
    wait_until(lambda: warm_now(town) == 0, 15, "that nothing is left")


def test_our_own_agent_keeps_more_warm_while_more_visitors_come(town):
    node = start_agent(town, "warm = 1\nmetrics = 127.0.0.1:9100\n")
    target = listening(town)
    wait_until(lambda: warm_now(town) == 1, 15, "that one is warm")
    visitors = [visit(town, REQUEST) for _ in range(8)]
    carried = [accept(target) for _ in visitors]
    wait_until(lambda: 2 <= warm_now(town) <= 8, 5, "that more are warm than before")  # eight in a second, or in a few
    for link in carried:
        assert read(link, len(REQUEST)) == REQUEST
    wait_until(lambda: sum(figure(node.host, f'agent_visitors_total{{by="{by}"}}') for by in ("warm", "new")) == 8, 5, "that all are counted")
    wait_until(lambda: warm_now(town) == 1, 20, "that it has let them go again")
    for link in carried + visitors:
        link.close()


class Wire:
    """What passes to and from this host, as who is on the way sees it."""

    def __init__(self, host):
        self.packets = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.packets.bind(("eth0", 3))  # not what it says to its own target
        self.packets.setblocking(False)
        self.seen = b""

    def sees(self, what):
        while True:
            try:
                self.seen += self.packets.recv(65536)
            except BlockingIOError:
                return what in self.seen


def is_on_the_wire(town, target, first, port):
    """Of a visitor: its first bytes, what its target says then, and what it says then itself."""
    wire = Wire(town.agents)
    visitor = visit(town, first, port)
    carried = accept(target)
    assert read(carried, len(first)) == first
    carried.sendall(b"the target's own words")
    assert read(visitor, 22) == b"the target's own words"
    visitor.sendall(b"the visitor's own words")
    assert read(carried, 23) == b"the visitor's own words"
    visitor.close()
    assert carried.recv(1) == b""
    carried.close()
    # What the visitor and the door say to each other does not pass here.
    return tuple(wire.sees(what) for what in (b"www.example.com", first, b"the target's own words", b"the visitor's own words"))


@pytest.mark.parametrize("warm, sees_first", [(1, False), (0, True)])
def test_a_visitor_of_tls_is_not_wrapped_twice_and_one_of_http_is(town, warm, sees_first):
    start_agent(town, f"warm = {warm}\n")
    target = listening(town)
    if warm:
        wait_until(lambda: warm_now(town) == 1, 15, "that one is warm")
    # By a warm connection the first bytes go within TLS, by a new one behind it: there the door sends them itself.
    assert is_on_the_wire(town, target, client_hello(), 443) == (sees_first, sees_first, True, True)
    assert figure(town.relay.host, "raw_visitors_total") == 1
    if warm:
        wait_until(lambda: warm_now(town) == 1, 15, "that another is warm")
    assert is_on_the_wire(town, target, REQUEST, 80) == (False,) * 4
    assert figure(town.relay.host, "raw_visitors_total") == 1


def moves(source, sink, n):
    """So many bytes, exactly, and the end behind them."""
    block, sent, got = os.urandom(1 << 20), hashlib.sha256(), hashlib.sha256()

    def send():
        for _ in range(n >> 20):
            source.sendall(block)
        source.shutdown(socket.SHUT_WR)
    thread = threading.Thread(target=send)
    thread.start()
    total = 0
    while piece := sink.recv(262144):
        got.update(piece)
        total += len(piece)
    thread.join()
    for _ in range(n >> 20):
        sent.update(block)
    return total == n and got.digest() == sent.digest()


def test_what_is_not_wrapped_comes_whole_and_its_ends_and_resets_are_tcps(town):
    node = start_agent(town, f"warm = 2\n[public]\naddress = {town.agents.ip}\nmetrics = 127.0.0.1:9100\n")
    target, hello = listening(town), client_hello()

    def visited():
        wait_until(lambda: warm_now(town) > 0, 15, "that one is warm")
        visitor = visit(town, hello, 443)
        carried = accept(target)
        assert read(carried, len(hello)) == hello
        return visitor, carried
    visitor, carried = visited()
    assert moves(visitor, carried, 64 << 20) and moves(carried, visitor, 64 << 20)  # the second behind a half-close
    visitor, carried = visited()
    reset(carried)
    assert hears_reset(visitor)
    visitor, carried = visited()
    reset(visitor)
    assert hears_reset(carried)
    visitor, carried = visited()
    carried.sendall(b"answer")
    assert read(visitor, 6) == b"answer"
    assert figure(town.relay.host, "raw_visitors_total") == 4
    wait_until(lambda: figure(node.host, "agent_raw_visitors_total") == 4, 10, "that the agent has published it")
    wait_until(lambda: figure(node.host, "agent_visitors") == 1, 10, "that those who ended are let go")
    node.program.kill()
    carried.close()
    with pytest.raises((ConnectionResetError, LabError)):  # what of both the kernel says for who is killed
        read(visitor, 1)
    visitor.close()
    wait_until(lambda: warm_now(town) == 0, 15, "that nothing is left of the agent")


def test_who_speaks_tls_is_reset_when_its_target_is_not_there(town):
    start_agent(town, "warm = 1\n")
    wait_until(lambda: warm_now(town) == 1, 15, "that one is warm")
    assert hears_reset(visit(town, client_hello(), 443))


def test_who_was_not_served_by_a_warm_connection_is_told_again_and_reset_soon(town):
    """Its agent knows at once that the target cannot be reached: nobody waits for what is told twice, and carried by neither."""
    town.agents.run(["ip", "route", "add", "unreachable", "203.0.113.9"])
    new = {"host": "down.example.com", "hexSecretHash": hashlib.sha256(SECRET).hexdigest()}
    assert Admin(town.relay).ask("POST", "/api/v1/proxy", new)[0] == 200
    node = start_agent(town, "warm = 1\nmetrics = 127.0.0.1:9100\nexpose = down.example.com 203.0.113.9:80\n")
    wait_until(lambda: warm_now(town) == 2, 15, "that both hosts' are warm")
    begin = time.monotonic()
    assert hears_reset(visit(town, REQUEST.replace(b"WWW.Example.com", b"down.example.com")))
    assert time.monotonic() - begin < 4.5  # five seconds, where the agent takes it for one that it carries
    assert figure(node.host, "agent_told_twice_total") == 0
    node.program.wait_for_log("cannot connect to 203.0.113.9:80", 5)


def test_an_agent_is_raw_for_who_speaks_tls_alone(town):
    """Of the second protocol by hand, with both kinds of words; one of the first is never sent the other's start."""
    agent = TlsAgent(town.agents, town.relay.host.ip)
    subscription = agent.register("www.example.com", SECRET)["result"]
    hello = client_hello()

    def dial_back_raw(first, port):
        visitor = visit(town, first, port)
        told = agent.next_visit()
        link = agent.link(told["serverListeningPort"])
        link.say(b"\x02" + bytes.fromhex(told["secret"]))
        link.end_tls()
        return visitor, link
    visitor, link = dial_back_raw(hello, 443)
    assert link.read_to_tls_end() == b""
    assert passes(visitor, link.socket, hello)
    visitor, link = dial_back_raw(REQUEST, 80)
    assert hears_reset(visitor)
    with pytest.raises(ConnectionResetError):  # behind TLS's end, or before
        while link.socket.recv(4096):
            pass
    is_dropped(town, "dialled back without TLS", 1)
    prepared = agent.ask("webgw_prepare", {"subscription": subscription, "count": 1})["result"]
    link = agent.link(prepared["serverListeningPort"])
    link.say(b"\x01" + bytes.fromhex(prepared["secrets"][0]))
    wait_until(lambda: warm_now(town) == 1, 10, "that it is warm")
    visitor = visit(town, hello, 443)
    said = link.read_to_tls_end()
    assert said[0] == 2 and said[33:51] == struct.pack("!HB", 443, 15) + b"www.example.com"
    assert said[51:] == struct.pack("!H", len(hello)) + hello
    link.say(TAKEN)
    link.end_tls()
    link.socket.sendall(b"answer")
    assert read(visitor, 6) == b"answer"
    visitor.close()
    assert link.socket.recv(1) == b""
    link.socket.close()
    old = warm(agent, subscription, 1)[0]
    wait_until(lambda: warm_now(town) == 1, 10, "that it is warm")
    visitor = visit(town, hello, 443)
    assert len(started(old, hello, 443)) == 64
    old.sendall(TAKEN + b"answer")
    assert read(visitor, 6) == b"answer"
    visitor.sendall(b"more")
    assert read(old, 4) == b"more"


def reset(end):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def test_a_reset_after_a_half_close_is_noticed_while_the_other_side_is_silent(town):
    """By the agent its target's, by the node the visitor's."""
    node = start_agent(town, "warm = 1\nmetrics = 127.0.0.1:9100\n")
    target = listening(town)
    visitor = visit(town, REQUEST)
    carried = accept(target)
    assert read(carried, len(REQUEST)) == REQUEST
    carried.shutdown(socket.SHUT_WR)
    assert visitor.recv(1) == b""
    wait_until(lambda: figure(node.host, "agent_visitors") == 1, 10, "that it is counted")
    reset(carried)
    wait_until(lambda: figure(node.host, "agent_visitors") == 0, 10, "that the agent carries nobody")
    visitor.close()
    wait_until(lambda: figure(town.relay.host, "links") == 1, 20, "that only the warm one is left")
    visitor = visit(town, REQUEST)
    carried = accept_who_speaks(target)
    assert read(carried, len(REQUEST)) == REQUEST
    wait_until(lambda: figure(town.relay.host, "links") == 2, 10, "that both are counted")
    visitor.shutdown(socket.SHUT_WR)
    assert carried.recv(1) == b""
    reset(visitor)
    wait_until(lambda: figure(town.relay.host, "links") == 1, 20, "that the node has let go of it")


def test_our_own_agent_subscribes_again_to_what_was_taken_away_and_given_back(town):
    """The server says nothing of it, and the other host's subscription keeps the WebSocket."""
    admin, digest = Admin(town.relay), hashlib.sha256(SECRET).hexdigest()
    new = {"host": "new.example.com", "hexSecretHash": digest}
    assert admin.ask("POST", "/api/v1/proxy", new)[0] == 200
    node = start_agent(town, "warm = 1\nexpose = new.example.com 127.0.0.1:8080\n")
    node.program.wait_for_log("new.example.com leads to 127.0.0.1:8080", 15)
    wait_until(lambda: warm_now(town) == 2, 15, "that both are warm")
    assert admin.ask("DELETE", "/api/v1/proxy/new.example.com")[0] == 200
    node.program.wait_for_log("new.example.com is refused by .*: Unknown host", 15)
    assert admin.ask("POST", "/api/v1/proxy", new)[0] == 200
    wait_until(lambda: warm_now(town) == 2, 40, "that it subscribed again")
    target, first = listening(town), REQUEST.replace(b"WWW.Example.com", b"new.example.com")
    assert passes_through(visit(town, first), accept(target), first)
    assert "not connected" not in node.program.output()


def test_hosts_that_are_refused_take_nothing_from_those_that_are_not(town):
    node = start_agent(town, "warm = 1\n" + "".join(f"expose = no{i}.example.com 127.0.0.1:8080\n" for i in range(15)))
    node.program.wait_for_log("no14.example.com is refused by .*: Unknown host", 15)
    wait_until(lambda: [host["state"] for host in node.status()["webgw_agent"]["hosts"]] == ["subscribed"] + ["refused"] * 15,
               10, lambda: str(node.status()["webgw_agent"]))
    assert "no14.example.com to 127.0.0.1:8080: refused: Unknown host" in node.ctl("status", check=False).stdout
    wait_until(lambda: warm_now(town) == 1, 15, "that the good one is warm")
    target = listening(town)
    assert passes_through(visit(town, REQUEST), accept(target), REQUEST)
    assert "not connected" not in node.program.output()


def test_who_guesses_hosts_secrets_is_sent_away(town):
    agent = subscribed(town)
    for _ in range(32):
        assert agent.register("www.example.com", b"1" * 32)["error"]["code"] == -20001
    with pytest.raises(LabError, match="ended"):
        agent.read_until(b"never")


def test_our_own_agent_needs_no_secret_where_its_node_is_a_member(lab, build):
    town = make_town(lab, build, members=("alice",))
    alice, admin = town.nodes["alice"], town.control.admin
    pin = re.search(r"this node's pin is (\S+)", town.relay.program.output())[1]
    alice.config.write_text(alice.config.read_text() + f"""
[webgw-agent]
server = {town.relay.host.ip}:9081
server_pin = {pin}
expose = app.example.com 127.0.0.1:8080
""")
    alice.kill()
    alice.start()
    alice.program.wait_for_log("app.example.com is refused by .*: Unknown host", 15)
    admin("host", "add", "alice", "app.example.com")
    alice.kill()
    alice.start()  # else it would try again in half a minute
    alice.program.wait_for_log("app.example.com leads to 127.0.0.1:8080", 15)
    target = listening(town, host=alice.host)
    first = REQUEST.replace(b"WWW.Example.com", b"app.example.com")
    assert passes_through(visit(town, first), accept(target), first)
    wrong = alice.config.read_text().replace(pin, "A" * 43)
    alice.config.write_text(wrong)
    alice.kill()
    alice.start()
    alice.program.wait_for_log(r"not connected to .*:9081", 15)  # whose key it is not
