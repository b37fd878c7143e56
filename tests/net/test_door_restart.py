"""A public node is restarted, and the visitors of its front door notice nothing but a pause.

      control    relay (public node, front door, webgw)    outside: visitors    agents
         |          |                                          |                  |
      ---+----------+---------- internet 198.51.100.0/24 ------+-------+----------+---
                                                                       |
                                                            home [port-restricted]
                                                                       |
                                                  alice: servers at her overlay address and at 127.0.0.1

What systemd does is done by Supervised. tests/unit/frontdoor/test_stream_*.c have the rules one by one.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import threading

import pytest

from lab import LabError, wait_until
from overlay import Overlay
from test_relay_operator import Supervised
from test_webgw import Admin, client_hello
from webgw import Agent, TlsAgent

SECRET = b"0" * 32
MUCH = 50_000_000
MEGABYTE = 1_000_000


class Keeper(Supervised):
    """As systemd: adds what it is sent, and forgets when it is told to."""

    def take_word(self):
        """One message, if there is one."""
        try:
            text, fds, _, _ = socket.recv_fds(self.notify, 4096, 64)
        except (BlockingIOError, TimeoutError):
            return False
        if text.startswith(b"FDSTOREREMOVE=1\nFDNAME=relay"):
            for kept in self.kept:
                kept.close()
            self.kept = []
        elif text.startswith(b"FDSTORE=1\nFDNAME=relay"):
            self.kept += [socket.socket(fileno=fd) for fd in fds]
        else:
            for fd in fds:  # BARRIER=1 waits for that
                os.close(fd)
        return True

    def await_kept(self):
        """What was sent until now."""
        self.notify.setblocking(False)
        while self.take_word():
            pass

    def attend(self, ends):
        self.notify.settimeout(0.05)
        while self.take_word() or not ends.is_set():
            pass

    def restart_in_place(self):
        """As `systemctl restart`."""
        if self.stop() != 0:
            raise LabError("it did not end well")
        self.await_kept()
        self._spawn()


class Itself:
    """A program that nobody supervises: told to, it begins anew in its own process."""

    def __init__(self, program):
        self.program = program

    def __getattr__(self, name):
        return getattr(self.program, name)

    def await_rest(self):
        """It has begun anew, and is not about to do it again."""
        def rests():
            _, begins, since = self.program.output().rpartition("beginning anew")
            return begins and "state: online" in since and "asking" not in since
        wait_until(rests, 30, "that it has begun anew for the last time")

    def restart_in_place(self):
        self.program._from = os.path.getsize(self.program.log)
        self.program.signal(signal.SIGUSR2)
        self.program.wait_for_log(r"beginning anew[\s\S]*local_api: listening", 15)


class Town:
    def __init__(self, lab, build, by_itself=False):
        self.overlay = Overlay(lab, build, members=("alice",))
        self.relay = self.overlay.relay
        self.config(["app.demo alice:8080", "other.demo alice:8080"])
        self.relay.program.stop()
        if by_itself:
            self.file = self.relay.host.folder / "p2pnode"  # of its own, to be replaced
            shutil.copy2(build.program("p2pnode"), self.file)
            self.relay.program = Itself(self.relay.host.start([self.file, *self.relay.argv[1:]]))
        else:
            self.relay.program = Keeper(self.relay.host, self.relay.argv, "supervised")
            self.relay.host.programs.append(self.relay.program)
        self.relay.wait_for(lambda status: True, "answers")
        self.overlay.join()
        self.alice = self.overlay.nodes["alice"]
        self.outside = lab.host("outside", self.overlay.internet)
        self.agents = lab.host("agents", self.overlay.internet)
        self.server = self.listen(self.alice.ip, 8080)

    def config(self, hosts, lanes=""):
        self.first_text = getattr(self, "first_text", self.relay.config.read_text())
        self.relay.config.write_text(self.first_text.replace("[node]\n", "[node]\n" + lanes) + "metrics = 127.0.0.1:9100\n[frontdoor]\nlisten = 80, 443\ntcp_ports = 2222\n" +
                                     "".join(f"host = {host}\n" for host in hosts) + f"""
[webgw]
listen = 9080
allow_plaintext = yes
host = www.example.com {hashlib.sha256(SECRET).hexdigest()}
""")

    def listen(self, ip, port):
        listener = self.alice.host.socket(kind=socket.SOCK_STREAM)
        listener.bind((ip, port))
        listener.listen(20)
        listener.settimeout(20)
        return listener

    def visit(self, said, port=80):
        visitor = self.outside.socket(kind=socket.SOCK_STREAM)
        visitor.settimeout(30)
        visitor.connect((self.relay.host.ip, port))
        visitor.sendall(said)
        return visitor

    def pair(self, host="app.demo", listener=None):
        """A visitor and who serves it, with the request read."""
        visitor = self.visit(request(host))
        while True:
            server, _ = (listener or self.server).accept()
            server.settimeout(30)
            got = server.recv(len(request(host)), socket.MSG_WAITALL)
            if got:  # who only looks whether the server is there says nothing
                assert got == request(host)
                return visitor, server

    def drops(self, what):
        return int(self.relay.status()["drops"].get(f"front door: {what}", 0))

    def metric(self, name):
        with self.relay.host.socket(kind=socket.SOCK_STREAM) as stream:
            stream.settimeout(10)
            stream.connect(("127.0.0.1", 9100))
            stream.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            text = b"".join(iter(lambda: stream.recv(65536), b"")).decode()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture
def town(lab, build):
    return Town(lab, build)


@pytest.fixture
def unsupervised(lab, build):
    return Town(lab, build, by_itself=True)


def request(host):
    return f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def read(end, n):
    got = b""
    while len(got) < n:
        piece = end.recv(n - len(got))
        if not piece:
            raise LabError(f"ended after {got!r}")
        got += piece
    return got


def answers(visitor, server):
    """Both ways."""
    visitor.sendall(b"are you there")
    assert read(server, 13) == b"are you there"
    server.sendall(b"yes")
    assert read(visitor, 3) == b"yes"
    return True


def is_reset(end):
    with pytest.raises(ConnectionResetError):
        raise LabError(f"heard {end.recv(1)!r}")
    end.close()
    return True


class Transfer:
    """MUCH bytes from one end to the other, with an end behind them; .begun when some have arrived; the half is not passed alone."""

    def __init__(self, source, sink, n=MUCH):
        self.source, self.sink, self.n = source, sink, n
        self.bytes = os.urandom(MEGABYTE)
        self.begun, self.may_pass_half = threading.Event(), threading.Event()
        self.hash, self.n_read, self.failure = hashlib.sha256(), 0, None
        self.threads = [threading.Thread(target=self.attempt, args=(what,)) for what in (self.send, self.receive)]
        for thread in self.threads:
            thread.start()

    def attempt(self, what):
        try:
            what()
        except OSError as error:
            self.failure = error

    def send(self):
        for _ in range(self.n // MEGABYTE):
            self.source.sendall(self.bytes)
        self.source.shutdown(socket.SHUT_WR)

    def receive(self):
        while piece := self.sink.recv(262144):
            self.hash.update(piece)
            self.n_read += len(piece)
            if self.n_read > self.n // 20:
                self.begun.set()
            if self.n_read > self.n // 2:
                self.may_pass_half.wait(30)

    def is_whole(self):
        for thread in self.threads:
            thread.join(60)
        expected = hashlib.sha256()
        for _ in range(self.n // MEGABYTE):
            expected.update(self.bytes)
        if self.failure or self.n_read != self.n:
            raise LabError(f"{self.n_read} bytes of {self.n}: {self.failure}")
        return self.hash.digest() == expected.digest()


def expose(town):
    """Published by alice, at a server of hers that only her acceptor reaches."""
    town.overlay.control.admin("host", "add", "alice", "published.demo")
    listener = town.listen("127.0.0.1", 8081)
    town.alice.ctl("expose", "published.demo", "8081", "--proxy", "none")
    wait_until(lambda: town.alice.rpc("node.exposures")["exposures"][0]["state"] == "live", 20, "it is published")
    return listener


def port_pair(town):
    """By a port of the door's that is alice's alone: whom he wants the visitor never says."""
    town.overlay.control.admin("port", "add", "alice", "tcp:2222")
    listener = town.listen("127.0.0.1", 8082)
    town.alice.ctl("expose", "tcp", ":2222", "8082", "--proxy", "none")
    wait_until(lambda: {one["state"] for one in town.alice.rpc("node.exposures")["exposures"]} == {"live"}, 20, "it is open")
    visitor = town.visit(b"hello", 2222)
    while True:
        server, _ = listener.accept()
        server.settimeout(30)
        if server.recv(5, socket.MSG_WAITALL):
            return visitor, server


def agent_pair(town):
    """By webgw: a visitor, and the socket by which its agent has dialled back."""
    agent = Agent(town.agents, town.relay.host.ip)
    assert "result" in agent.register("www.example.com", SECRET)
    visitor = town.visit(request("www.example.com"))
    caller = agent.dial_back(agent.next_visit())
    caller.settimeout(30)
    assert read(caller, len(request("www.example.com"))) == request("www.example.com")
    return visitor, caller


def raw_agent_pair(town):
    """The same, of a visitor that speaks TLS, by an agent within TLS, which ends behind the secret."""
    agent = TlsAgent(town.agents, town.relay.host.ip)
    assert "result" in agent.register("www.example.com", SECRET)
    return raw_pair_of(town, agent, client_hello())


def visitor_who_waits(town, hello):
    """A member's host is led somewhere a tenth of a second after its agent was told so, at most: until then it is nobody's."""
    def attempt():
        visitor = town.visit(hello, 443)
        visitor.settimeout(0.3)
        try:
            visitor.recv(1)
        except TimeoutError:
            visitor.settimeout(30)
            return visitor
        except ConnectionResetError:
            visitor.close()
        return None
    return wait_until(attempt, 5, "that the host is there")


def raw_pair_of(town, agent, hello):
    visitor = visitor_who_waits(town, hello)
    told = agent.next_visit()
    link = agent.link(told["serverListeningPort"])
    link.say(b"\x02" + bytes.fromhex(told["secret"]))
    link.end_tls()
    assert link.read_to_tls_end() == b""
    assert read(link.socket, len(hello)) == hello
    return visitor, link.socket


def test_established_streams_go_on_over_a_restart_by_systemd(town, measured):
    streams_go_on_over_a_restart(town, measured, "by systemd")


def test_established_streams_go_on_when_the_node_begins_anew_by_itself(unsupervised, measured):
    process = unsupervised.relay.program.pid
    streams_go_on_over_a_restart(unsupervised, measured, "by itself")
    assert unsupervised.relay.program.running and unsupervised.relay.program.pid == process


def streams_go_on_over_a_restart(town, measured, how):
    listener = expose(town)
    wait_until(lambda: town.drops("unknown host") == 0, 5, "nobody was refused")
    idle = town.pair()
    by_agent, by_raw_agent = agent_pair(town), raw_agent_pair(town)
    exposed = town.pair("published.demo", listener)
    at_port = port_pair(town)
    half = town.pair()
    half[0].shutdown(socket.SHUT_WR)
    assert half[1].recv(1) == b""
    other_half = town.pair()
    other_half[1].shutdown(socket.SHUT_WR)
    assert other_half[0].recv(1) == b""
    undecided = town.visit(b"GET / HTTP/1.1\r\nHo")
    silent = town.visit(b"")
    down, up, published = town.pair(), town.pair(), town.pair("published.demo", listener)
    agents_down = agent_pair(town)
    transfers = [Transfer(down[1], down[0]), Transfer(up[0], up[1]), Transfer(published[1], published[0], MUCH // 2),
                 Transfer(*reversed(agents_down), MUCH // 2)]
    for transfer in transfers:
        assert transfer.begun.wait(30)

    town.relay.program.restart_in_place()
    assert all(transfer.n_read < transfer.n for transfer in transfers)  # they are in the middle
    for transfer in transfers:
        transfer.may_pass_half.set()
    half[1].sendall(b"x" * 300000)  # while nobody carries it
    idle[1].sendall(b"meanwhile")
    assert all(transfer.is_whole() for transfer in transfers)
    assert read(idle[0], 9) == b"meanwhile"
    for pair in (idle, by_agent, by_raw_agent, exposed, at_port):
        assert answers(*pair)
    assert read(half[0], 300000) == b"x" * 300000
    half[1].close()
    assert half[0].recv(1) == b""
    other_half[0].sendall(b"still heard")
    assert read(other_half[1], 11) == b"still heard"
    undecided.sendall(b"st: app.demo\r\n\r\n")
    silent.sendall(request("other.demo"))
    assert {serve(town), serve(town)} == {request("app.demo"), request("other.demo")}

    assert taken(town) == 13  # eleven pairs, and two who had not said whom they want
    assert lost(town) == town.drops("not taken up after a restart") == 0
    gap = town.relay.program.wait_for_log(r"go on, after (\d+) ms")[1]
    measured(f"nobody carries visitors' bytes while a public node is restarted {how}", int(gap) / 1000)
    # Their ends and resets are still passed on, and once: nothing is left of them.
    exposed[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exposed[0].close()
    assert is_reset(exposed[1])
    for pair in (idle, by_agent, by_raw_agent):
        pair[0].close()
        assert pair[1].recv(1) == b""
        pair[1].close()

    # And a second time: what was taken up is handed over again.
    last = town.pair()
    town.relay.program.restart_in_place()
    assert answers(*last)


def certificate_files(node):
    membership = json.loads((node.state / "membership.json").read_text())
    membership = next(m for m in (membership, *membership.values()) if isinstance(m, dict) and "certificate" in m)
    files = [node.state / "certificate.pem", node.state / "key.pem"]
    for file, text in zip(files, (membership["certificate"], (node.state / "identity.key").read_text())):
        file.write_text(text)
    return files


def subscribed_member(town, files, host):
    def attempt():
        agent = TlsAgent(town.agents, town.relay.host.ip, certificate=files)
        return agent if "result" in agent.ask("webgw_registerClient", {"host": host}) else agent.close()

    return wait_until(attempt, 20, "that the member's agent has it", interval=0.2)


def test_visitors_of_hosts_that_members_have_by_grant_alone_go_on_until_it_is_taken_back(town):
    """Of two members' hosts, which the starting node has nowhere in its configuration; the agent of one comes back, the other's does not."""
    hosts, files = ("kept.example.com", "alone.example.com"), certificate_files(town.alice)
    for host in hosts:
        town.overlay.control.admin("host", "add", "alice", host)
    kept, alone = [raw_pair_of(town, subscribed_member(town, files, host), client_hello(host)) for host in hosts]

    town.relay.program.restart_in_place()
    assert answers(*kept) and answers(*alone)
    town.relay.wait_for(lambda status: True, "answers")
    assert (taken(town), lost(town)) == (2, 0)
    agent = subscribed_member(town, files, "kept.example.com")
    admin = Admin(town.relay)
    assert admin.ask("GET", "/api/v1/proxy/kept.example.com")[1]["visitorsNow"] == 1  # who was there before counts,
    new = raw_pair_of(town, agent, client_hello("kept.example.com"))
    assert answers(*kept) and answers(*new)
    assert admin.ask("GET", "/api/v1/proxy/kept.example.com")[1]["visitorsNow"] == 2
    assert [client["open"] for client in admin.ask("GET", "/api/v1/clients")[1]] == [1]  # and for no agent
    town.overlay.control.admin("host", "remove", "alice", "alone.example.com")
    assert all(is_reset(end) for end in alone)
    assert answers(*kept)

    # And a second time: what was taken up is handed over again.
    town.relay.program.restart_in_place()
    assert answers(*kept)
    town.overlay.control.admin("host", "remove", "alice", "kept.example.com")
    assert all(is_reset(end) for end in kept)


def test_a_node_that_begins_anew_takes_the_configuration_as_it_is_then_and_none_that_is_bad(unsupervised):
    town, program = unsupervised, unsupervised.relay.program
    visitor, server = town.pair()
    other, other_server = town.pair("other.demo")
    good = town.relay.config.read_text()
    town.relay.config.write_text(good + "no_such_setting = 1\n")
    program.signal(signal.SIGUSR2)
    program.wait_for_log(r"no_such_setting[\s\S]*all stays as it is: .*/p2pnode would not start")
    assert answers(visitor, server)
    town.config(["app.demo alice:8080", "new.demo alice:8080"], "lanes = 2\n")
    program.restart_in_place()
    # Of more than one each keeps its flows together by a program that took a capability to load, given up since the first start.
    assert len(town.relay.status()["lanes"]) == 2
    assert answers(visitor, server) and answers(*town.pair("new.demo"))
    assert is_reset(other) and is_reset(town.visit(request("other.demo")))
    other_server.sendall(b"are you there")  # its reset came before there was a tunnel again
    assert is_reset(other_server)
    program.program._from = os.path.getsize(program.log)
    for number in (signal.SIGUSR2, signal.SIGUSR1) * 20:  # whatever it is doing when they come
        program.signal(number)
    program.await_rest()
    assert answers(visitor, server)
    descriptors = os.listdir(f"/proc/{program.pid}/fd")
    program.restart_in_place()
    wait_until(lambda: len(os.listdir(f"/proc/{program.pid}/fd")) <= len(descriptors), 10, "that none is left over")
    program.signal(signal.SIGUSR2)
    assert program.stop() == 0  # whoever asks for the end, gets it
    assert is_reset(visitor)


def replace(file, text):
    """As a package does: the old one stays for who runs it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o755)
    new.rename(file)


def test_a_node_gives_nothing_up_for_a_program_that_would_not_start(unsupervised):
    town, program = unsupervised, unsupervised.relay.program
    process, visitor, server = program.pid, *town.pair()
    works = town.file.with_suffix(".works")
    town.file.rename(works)
    for text, why in ((None, "cannot run .*/p2pnode: no such file"), ("#!/bin/sh\nexit 127\n", "would not start.*exit code 127"),
                      ("#!/bin/sh\nkill -SEGV $$\n", "was ended by signal 11")):
        if text:
            replace(town.file, text)
        program.signal(signal.SIGUSR2)
        program.wait_for_log(f"all stays as it is: .*{why}")
        assert answers(visitor, server)
    # An answer of before is none for who asks again: its second one counts.
    answers_by = town.file.with_suffix(".answers")
    os.mkfifo(answers_by)
    replace(town.file, f"#!/bin/sh\ntest $1 = --check-successor && read answer < {answers_by} && exit $answer\n")
    before = program.output().count("all stays as it is")
    program.signal(signal.SIGUSR2)
    with open(answers_by, "w") as answer:  # which waits until it is asked
        program.signal(signal.SIGUSR2)
        program.wait_for_log("asking .* once more")
        first = children(program.pid)
        answer.write("0\n")
    wait_until(lambda: children(program.pid) not in ([], first), 5, "that another is asked")
    answers_by.write_text("1\n")
    wait_until(lambda: program.output().count("all stays as it is") > before, 5, "that it stays")
    assert program.pid == process and answers(visitor, server) and "beginning anew" not in program.output()
    # One that is asked when it is told to end is not waited for.
    replace(town.file, "#!/bin/sh\nwhile :; do read line < /dev/zero; done\n")
    before = len(children(program.pid))
    program.signal(signal.SIGUSR2)
    wait_until(lambda: len(children(program.pid)) > before, 5, "that it is asked")
    assert program.pid == process and program.stop() == 0


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def test_a_port_of_udp_is_free_for_who_binds_it_otherwise_at_the_next_start(town):
    """Of UDP a copy that systemd has keeps the port, though nobody reads it: it is given up before the port is bound anew."""
    program, relay = town.relay.program, town.relay
    assert program.stop() == 0
    program.await_kept()
    assert (relay.host.ip, 3478) in {kept.getsockname()[:2] for kept in program.kept if kept.type == socket.SOCK_DGRAM}
    relay.config.write_text(relay.config.read_text().replace(f"address = {relay.host.ip}\n", ""))
    ends = threading.Event()
    systemd = threading.Thread(target=program.attend, args=(ends,))
    systemd.start()
    try:
        relay.start()
        relay.wait_for_control()
    finally:
        ends.set()
        systemd.join()
    places = {kept.getsockname()[:2] for kept in program.kept if kept.type == socket.SOCK_DGRAM}
    assert places == {("::", 3478)}


def taken(town):
    return town.metric('p2pnode_door_streams_taken_total{door="front"}')


def lost(town):
    return town.metric('p2pnode_door_streams_lost_total{door="front"}')


def serve(town):
    server, _ = town.server.accept()
    server.settimeout(20)
    got = server.recv(4096)
    server.close()
    return got
