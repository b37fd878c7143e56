"""The lab itself: NAT types behave as named, loss and cuts are real, and nothing is left behind.

The NAT tests use one topology, the two servers answer with the address they saw:

    server-1 ---+
    server-2 ---+-- internet --- router [NAT] --- inside --- host
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lab import Lab, LABS, LabError, NAT_TYPES, _marked, sweep, wait_until

SO_RCVBUFFORCE = 33
LAB = Path(__file__).with_name("lab.py")


NEVER = 0.3  # seconds that tell "does not arrive"; what does arrive may take far longer on a busy machine


def udp(host, port):
    s = host.socket()
    s.bind((host.ip, port))
    s.settimeout(NEVER)
    return s


def arrives(receiver, sender, to, within=5.0):
    """Whether a datagram sent to `to` arrives; the source address it arrived with, or None."""
    receiver.settimeout(within)
    sender.sendto(b"x", to)
    try:
        return receiver.recvfrom(16)[1]
    except TimeoutError:
        return None


def drain(receiver):
    """How many datagrams still come."""
    receiver.settimeout(NEVER)
    count = 0
    while True:
        try:
            receiver.recv(16)
            count += 1
        except TimeoutError:
            return count


class Nat:
    """The topology above with open sockets."""

    def __init__(self, lab, nat):
        internet = lab.network()
        self.hosts = [lab.host(f"server-{i}", internet) for i in (1, 2)]
        self.router = lab.router("router", internet, nat=nat)
        self.host = lab.host("host", self.router.inside)
        self.servers = [udp(h, 4000) for h in self.hosts]
        self.other_port = udp(self.hosts[0], 4001)
        self.client = udp(self.host, 5000)

    def mapping(self, server, within=5.0):
        """The source address a server sees when the host sends to it."""
        return arrives(server, self.client, server.getsockname(), within)


@pytest.mark.parametrize("nat", NAT_TYPES)
def test_a_nat_maps_as_its_type_says(lab, nat):
    net = Nat(lab, nat)

    first, second = (net.mapping(s) for s in net.servers)

    assert first[0] == second[0] == net.router.ip
    if nat == "symmetric":
        assert first[1] != second[1]
    else:
        assert first[1] == second[1]


@pytest.mark.parametrize("nat, other_address, other_port", [
    ("full-cone", True, True),
    ("restricted", False, True),
    ("port-restricted", False, False),
    ("symmetric", False, False),
])
def test_a_nat_filters_as_its_type_says(lab, nat, other_address, other_port):
    net = Nat(lab, nat)
    mapped = net.mapping(net.servers[0])

    assert arrives(net.client, net.servers[0], mapped), "the answer of the one that was asked"
    for sender, allowed in ((net.servers[1], other_address), (net.other_port, other_port)):
        assert bool(arrives(net.client, sender, mapped, 5.0 if allowed else NEVER)) == allowed


def test_two_port_restricted_nats_can_be_punched(lab):
    """
    alice --- router-a [port-restricted] --- internet --- router-b [port-restricted] --- bob
    """
    internet = lab.network()
    routers = [lab.router(f"router-{x}", internet, nat="port-restricted") for x in "ab"]
    alice, bob = (udp(lab.host(n, r.inside), 5000) for n, r in zip(("alice", "bob"), routers))
    at = [(r.ip, 5000) for r in routers]

    assert arrives(bob, alice, at[1], NEVER) is None, "nobody asked bob"
    assert arrives(alice, bob, at[0]) == at[1], "alice had asked"
    assert arrives(bob, alice, at[1]) == at[0], "and now bob has, from the same mapping"


def test_udp_can_be_cut_and_tcp_goes_on(lab):
    net = Nat(lab, "port-restricted")
    listener = net.hosts[0].socket(kind=socket.SOCK_STREAM)
    listener.bind((net.hosts[0].ip, 443))
    listener.listen()
    stream = net.host.socket(kind=socket.SOCK_STREAM)
    stream.connect(listener.getsockname())
    served, _ = listener.accept()
    assert net.mapping(net.servers[0])

    net.router.block_udp()
    assert net.mapping(net.servers[0], NEVER) is None
    stream.sendall(b"still here")
    assert served.recv(16) == b"still here"

    net.router.unblock_udp()
    assert net.mapping(net.servers[0])


@pytest.mark.parametrize("where", ["network", "host"])
def test_loss_is_what_was_asked_for(lab, where):
    """
    a --- internet --- b
    """
    internet = lab.network()
    a, b = lab.host("a", internet), lab.host("b", internet)
    sender, receiver = udp(a, 4000), udp(b, 4000)
    (internet if where == "network" else b).loss(20)

    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
    for i in range(1000):
        sender.sendto(b"%d" % i, (b.ip, 4000))
    got = drain(receiver)

    assert 730 < got < 870, "five sigma around 800"


def test_bandwidth_is_limited(lab):
    """
    a --(16 Mbit/s)-- internet --- b
    """
    internet = lab.network()
    a, b = lab.host("a", internet), lab.host("b", internet)
    listener = b.socket(kind=socket.SOCK_STREAM)
    listener.bind((b.ip, 4000))
    listener.listen()
    a.bandwidth(16)
    stream = a.socket(kind=socket.SOCK_STREAM)
    stream.connect((b.ip, 4000))
    served, _ = listener.accept()

    begin = time.monotonic()
    size = 1 << 20
    sending = threading.Thread(target=lambda: (stream.sendall(bytes(size)), stream.close()))
    sending.start()
    got = 0
    while chunk := served.recv(1 << 16):
        got += len(chunk)
    sending.join()
    rate = got * 8 / (time.monotonic() - begin) / 1e6

    assert got == size
    assert 8 < rate < 20, "with the burst at the start"


def test_ipv6_and_a_router_without_nat(lab):
    """
    server --- internet --- router --- inside --- host        all of it with IPv6 too
    """
    internet = lab.network(v6="2001:db8::/64")
    server = lab.host("server", internet)
    router = lab.router("router", internet, inside6="2001:db8:1::/64")
    host = lab.host("host", router.inside)
    for outer, gateway in (("-4", router.ip), ("-6", router.ip6)):
        server.run(["ip", outer, "route", "add", "default", "via", gateway])
        host.run(["ip", outer, "route", "get", server.ip6 if outer == "-6" else server.ip])

    for family, ip in ((socket.AF_INET, server.ip), (socket.AF_INET6, server.ip6)):
        s, c = server.socket(family), host.socket(family)
        s.bind((ip, 4000))
        s.settimeout(2)
        c.sendto(b"x", (ip, 4000))
        seen = s.recvfrom(16)[1][0]
        assert seen == (host.ip if family == socket.AF_INET else host.ip6)


def test_a_host_can_be_unplugged_and_moved(lab):
    """
    a --- internet --- b
    """
    internet = lab.network()
    a, b = lab.host("a", internet), lab.host("b", internet)
    receiver, sender = udp(a, 4000), b.socket()

    b.unplug()
    assert arrives(receiver, sender, (a.ip, 4000), NEVER) is None
    b.plug()
    came = wait_until(lambda: arrives(receiver, sender, (a.ip, 4000), NEVER), 5, "a datagram from b")
    assert came[0] == b.ip
    drain(receiver)
    b.move("198.51.100.77")
    assert arrives(receiver, sender, (a.ip, 4000))[0] == "198.51.100.77"


def test_two_hosts_can_be_joined_by_a_cable(lab):
    """
    a --- b
    """
    a, b = lab.host("a"), lab.host("b")
    a.cable(b, "192.0.2.0/24")
    receiver, sender = udp(a, 4000), b.socket()

    came = wait_until(lambda: arrives(receiver, sender, ("192.0.2.1", 4000), NEVER), 5, "a datagram from b")
    assert came[0] == "192.0.2.2" and (a.ip, b.ip) == ("192.0.2.1", "192.0.2.2")


def test_each_host_has_its_own_run_folder(lab):
    a, b = lab.host("a"), lab.host("b")
    a.run(["touch", "/run/wireguard/wg0.sock"])

    assert b.run(["ls", "/run/wireguard"]).stdout == ""
    assert not Path("/run/wireguard/wg0.sock").exists()


def test_a_program_is_waited_for_by_what_it_writes(lab):
    host = lab.host("host")
    program = host.start(["sh", "-c", "echo up on port 7; exec sleep 60"], name="server")

    assert program.wait_for_log(r"port (\d+)")[1] == "7"
    with pytest.raises(LabError, match="still not"):
        program.wait_for_log("never", timeout=0.1)
    assert program.stop() == -signal.SIGTERM


def test_a_program_that_ends_early_is_said_at_once(lab):
    program = lab.host("host").start(["sh", "-c", "echo no such file; exit 3"], name="server")
    begin = time.monotonic()

    with pytest.raises(LabError, match="ended with 3(.|\n)*no such file"):
        program.wait_for_log("listening", timeout=30)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("script, fault", [
    ("kill -SEGV $$", "SIGSEGV"),
    ("echo '==1==ERROR: AddressSanitizer: heap-use-after-free'; exit 0", "AddressSanitizer"),
    ("echo 'x.c:1:2: runtime error: signed integer overflow'; exit 0", "runtime error"),
])
def test_a_crash_fails_the_lab_even_if_nobody_looked(script, fault):
    lab = Lab("crash")
    program = lab.host("host").start(["sh", "-c", script], name="server")
    program.process.wait()

    with pytest.raises(LabError, match=fault):
        lab.close()
    assert (lab.folder / "host" / "server.log").exists(), "the log is kept"
    shutil.rmtree(lab.folder)


def test_labs_do_not_see_each_other():
    with Lab("one") as one, Lab("two") as two:
        ends = []
        for lab in (one, two):
            internet = lab.network()
            a, b = lab.host("a", internet), lab.host("b", internet)
            ends.append((a.socket(), udp(b, 4000)))
        (a1, b1), (_, b2) = ends

        assert arrives(b1, a1, b1.getsockname())
        b2.settimeout(NEVER)
        with pytest.raises(TimeoutError):
            b2.recv(16)


# A lab in a process of its own, with a daemon that has left its parent.
CHILD = f"""
import sys, time
sys.path.insert(0, {str(LAB.parent)!r})
from lab import Lab
lab = Lab("victim")
router = lab.router("router", lab.network(), nat="symmetric")
host = lab.host("host", router.inside)
host.start(["sleep", "600"])
host.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & true"])
print(lab.mark, flush=True)
time.sleep(600)
"""


def marks():
    return [mark for _, mark in _marked()]


@pytest.fixture
def victim():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True,
                             start_new_session=True)
    mark = child.stdout.readline().strip()
    yield child, mark
    shutil.rmtree(LABS / f"victim-{child.pid}-1")


def test_a_killed_lab_leaves_nothing(victim):
    child, mark = victim
    # Waited for: while a process executes another program, its environment cannot be read.
    wait_until(lambda: marks().count(mark) >= 6, 5, "four places, a program and a daemon")

    os.killpg(child.pid, signal.SIGKILL)
    child.wait()

    wait_until(lambda: mark not in marks(), 5, "every process of the lab is gone")


def test_a_lab_sweeps_what_a_killed_reaper_left(victim):
    child, mark = victim
    owner = mark.rpartition(".")[0]
    reaper = next(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()
                  and f"--reap\0{owner}\0".encode() in (p / "cmdline").read_bytes())

    os.kill(reaper, signal.SIGKILL)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    sweep()

    assert mark not in marks()


def test_end_leaves_nothing_and_keeps_the_logs():
    lab = Lab("ended")
    host = lab.host("host")
    host.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & true"])
    host.run(["echo", "hello"])

    lab.end()

    assert lab.mark not in marks()
    assert "hello" in (host.folder / "run.log").read_text()
    lab.close()
    assert not lab.folder.exists()
