"""The day of who runs a relay: it is drained, restarted in place, watched.

All traffic goes by a relay: at both homes no UDP passes but, with the transport "udp", that of relays.
"""

import re
import socket
import subprocess
import sys
import time

import pytest

from lab import Program, wait_until
from overlay import Control, Node, Overlay
from traffic import Echo, Pulse

DRAIN_S = 10  # over UDP clients are served for 5 s more
METRICS_PORT = 9100
UDP_PORT = 3478
pytestmark = pytest.mark.alone
GAP_S = 1.0  # the longest silence that a user may see


def leave_only_relays(overlay, transport):
    for router in overlay.routers.values():
        if transport == "tls":
            router.block_udp()
        else:
            router.nft("table inet cut { chain forward { type filter hook forward priority -10;\n"
                       f"udp sport {UDP_PORT} accept\nudp dport {UDP_PORT} accept\nmeta l4proto udp drop\n}}\n}}")


@pytest.fixture(params=["tls", "udp"])
def transport(request):
    return request.param


@pytest.fixture
def overlay(lab, build, transport):
    """alice and bob, with two relays to choose from."""
    overlay = Overlay(lab, build)
    leave_only_relays(overlay, transport)
    second = Node(build, lab.host("second", overlay.internet), public=True).start()
    overlay.nodes["second"] = second
    for name in ("relay", "second", "alice", "bob"):
        overlay.nodes[name].join(overlay.control.link())
        if name in ("relay", "second"):
            overlay.control.admin("relay", "add", name)
    for name in ("alice", "bob"):
        overlay.nodes[name].wait_for_relay()
    for one, other in (("alice", "bob"), ("bob", "alice")):
        overlay.nodes[one].wait_for_peer(other)
    return overlay


def clients(node, transport=None):
    """Names of those who are connected."""
    return {client["name"] for client in node.rpc("relay.status")["clients"]
            if transport in (None, client["transport"])}


def test_a_drained_relay_is_left_within_a_second_and_empty_when_the_command_ends(overlay, transport, measured):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        pulse.keeps_going(100)
        drained = overlay.nodes[bob.home()]
        wait_until(lambda: {"alice", "bob"} <= clients(drained, transport), 10, f"both are there by {transport}")
        begin = time.monotonic()
        done = drained.ctl("relay", "drain", "--deadline", str(DRAIN_S))
        assert "The relay is empty" in done.stdout
        status = drained.rpc("relay.status")
        assert status["tls_clients"] == status["udp_clients"] == 0
        pulse.keeps_going(100)
        gap = pulse.longest_gap(begin - 0.1)
        measured(f"longest gap while the relay drained, {transport}", gap)
        assert gap < GAP_S
        other = ({"relay", "second"} - {drained.name}).pop()
        assert bob.home() == alice.home() == other
        assert "draining" in drained.ctl("relay", "status").stdout

    drained.ctl("relay", "undrain")
    assert not drained.rpc("relay.status")["draining"]


def get(node, path):
    """Status and text of a page of the node's."""
    with node.host.socket(kind=socket.SOCK_STREAM) as stream:
        stream.settimeout(10)
        stream.connect(("127.0.0.1", METRICS_PORT))
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, text = b"".join(iter(lambda: stream.recv(65536), b"")).decode().split("\r\n\r\n", 1)
    return int(head.split()[1]), text


def test_a_monitor_sees_figures_and_whether_the_relay_is_well(lab, build):
    internet = lab.network("internet")
    control = Control(build, lab.host("control", internet)).start()
    relay = Node(build, lab.host("relay", internet), public=True)
    with open(relay.config, "a") as config:
        config.write(f"metrics = 127.0.0.1:{METRICS_PORT}\n")
    relay.start()
    assert get(relay, "/healthz") == (503, "not serving: this node is no member of a network\n")

    relay.join(control.link())
    assert get(relay, "/healthz") == (200, "ok\n")
    status, text = get(relay, "/metrics")
    assert status == 200 and re.search(r'^p2pnode_relay_packets_in_total{transport="udp"} \d+$', text, re.M)
    assert re.search(r"^p2pnode_relay_serving 1$", text, re.M)

    relay.ctl("relay", "drain")
    assert get(relay, "/healthz")[0] == 503
    assert re.search(r"^p2pnode_relay_draining 1$", get(relay, "/metrics")[1], re.M)
    relay.ctl("relay", "undrain")
    assert get(relay, "/healthz")[0] == 200


# Starts a program with sockets as its descriptors 3 and up, and with what systemd tells of them.
LAUNCH = """
import os, sys
n = int(sys.argv[1])
given = [int(fd) for fd in sys.argv[2:2 + n]]
fds = [os.dup2(os.dup(fd), 200 + i) for i, fd in enumerate(given)]
for fd in given:
    os.close(fd)
for i, fd in enumerate(fds):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(n), LISTEN_FDNAMES=":".join(["relay"] * n))
os.execv(sys.argv[2 + n], sys.argv[2 + n:])
"""


class Supervised(Program):
    """A program under what systemd does for it: it keeps the sockets that it is sent, for the next start."""

    def __init__(self, place, argv, name):
        self.kept = []
        self.path = place.folder / "notify.sock"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(self.path))
        self.notify.settimeout(10)
        super().__init__(place, argv, name, {"NOTIFY_SOCKET": str(self.path)}, subprocess.DEVNULL)

    def _spawn(self, stdin=subprocess.DEVNULL):
        fds = [kept.fileno() for kept in self.kept]
        with open(self.log, "ab") as log:
            self._from = log.tell()
            self.process = subprocess.Popen(
                self.place.wrap([sys.executable, "-c", LAUNCH, str(len(fds)), *map(str, fds), *self.argv]),
                stdin=stdin, stdout=log, stderr=subprocess.STDOUT, pass_fds=fds,
                env=self.place.environment(self.env))
        self.ended_by_us = False
        self.started = time.monotonic()

    def await_kept(self):
        """Until it has sent its sockets."""
        while True:
            text, fds, _, _ = socket.recv_fds(self.notify, 4096, 32)
            if text.startswith(b"FDSTOREREMOVE=1\nFDNAME=relay"):
                self.kept = []
            elif text.startswith(b"FDSTORE=1\nFDNAME=relay"):
                self.kept = [socket.socket(fileno=fd) for fd in fds]
                return


@pytest.fixture
def supervised(lab, build, transport):
    """alice and bob, with one relay whose sockets outlive it."""
    overlay = Overlay(lab, build)
    leave_only_relays(overlay, transport)
    relay = overlay.relay
    relay.program.stop()
    relay.program = Supervised(relay.host, relay.argv, "supervised")
    relay.host.programs.append(relay.program)
    relay.wait_for(lambda status: True, "answers")
    overlay.join()
    relay.program.await_kept()
    return overlay


def test_a_connection_made_while_no_relay_runs_is_served_by_the_next(supervised):
    relay, alice = supervised.relay, supervised.nodes["alice"]
    relay.kill()
    with alice.host.socket(kind=socket.SOCK_STREAM) as stream:
        stream.settimeout(20)
        stream.connect((relay.host.ip, 443))  # by the kernel, though nobody is there
        relay.start()
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stream.recv(1) == b""  # it was read, and is no TLS
    assert relay.rpc("relay.status")["refused"]["no valid TLS"] == "1"
    alice.wait_for_relay()


def test_a_relay_restarted_in_place_is_missed_for_less_than_a_second(supervised, transport, measured):
    relay, alice, bob = (supervised.nodes[name] for name in ("relay", "alice", "bob"))
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        pulse.keeps_going(100)
        begin = time.monotonic()
        assert relay.program.stop() == 0
        relay.start()
        pulse.gap_after(time.monotonic())
        pulse.keeps_going(100)
        gap = pulse.longest_gap(begin - 0.1)
        measured(f"longest gap while the relay was restarted in place, {transport}", gap)
    if transport == "udp":  # the relay that follows has its clients: it answered before any of them was bound
        relay.program.wait_for_log(r"clients of the relay that ran before: [1-9]")
        assert gap < GAP_S
