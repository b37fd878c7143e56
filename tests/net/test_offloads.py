"""The four offload switches of p2pwg: whichever are on, off or refused, every byte arrives.

    a ---+--- internet ---+--- b
         c ---------------+
"""

import array
import contextlib
import fcntl
import hashlib
import os
import re
import signal
import socket
import struct
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from lab import wait_until
from overlay import Overlay
from wireguard import Interface

SWITCHES = ("tun-gso-read", "tun-gro-write", "udp-gso", "udp-gro")
UDP_SEGMENT = 103

State = namedtuple("State", "state error used refused fell_back")


class Net:
    """Hosts on one network, and interfaces that know each other."""

    def __init__(self, lab, build):
        self.p2pwg = build.program("p2pwg")
        self.internet = lab.network("internet", v6="2001:db8::/64")
        self.lab, self.n = lab, 0

    def interface(self, program=None, env=None):
        self.n += 1
        host = self.lab.host("abc"[self.n - 1], self.internet)
        return Interface(host, program or self.p2pwg, [f"10.9.0.{self.n}/24", f"fd09::{self.n}/64"], env=env)

    @staticmethod
    def connect(first, second, v6=False):
        for mine, other in (first, second), (second, first):
            mine.add_peer(other, other.endpoint(v6), f"{other.ip}/32,{ip_of(other, True)}/128")
            if "state UNKNOWN" not in mine.host.run(["ip", "link", "show", mine.name]).stdout:
                mine.up()
        first.ping(second.ip)
        first.ping(ip_of(second, True))


def ip_of(interface, v6):
    return interface.addresses[1 if v6 else 0].partition("/")[0]


@pytest.fixture
def net(lab, build):
    return Net(lab, build)


def states(interface):
    """What p2pwg says of its offloads when asked (SIGUSR1)."""
    before = len(interface.program.output())
    interface.program.signal(signal.SIGUSR1)
    line = re.compile(r"([\w-]+): (on|off|refused)( E\w+)?, used (\d+), refused (\d+), fell back (\d+)$", re.M)
    found = wait_until(lambda: (lambda lines: len(lines) == 4 and lines)(
        line.findall(interface.program.output()[before:])), 5, "four lines in the log")
    return {name: State(state, error.strip(), int(used), int(refused), int(fell_back))
            for name, state, error, used, refused, fell_back in found}


def check_tcp(sender, receiver, v6, megabytes=6):
    """A stream arrives byte for byte."""
    family = socket.AF_INET6 if v6 else socket.AF_INET
    listener = receiver.host.socket(family, socket.SOCK_STREAM)
    listener.bind((ip_of(receiver, v6), 0))
    listener.listen()
    listener.settimeout(30)
    client = sender.host.socket(family, socket.SOCK_STREAM)
    client.settimeout(30)
    client.connect(listener.getsockname()[:2])
    server, _ = listener.accept()
    server.settimeout(30)
    data = os.urandom(megabytes << 20)

    def send():
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
    thread = threading.Thread(target=send)
    thread.start()
    received = hashlib.sha256()
    while piece := server.recv(1 << 20):
        received.update(piece)
    thread.join()
    assert received.digest() == hashlib.sha256(data).digest()
    for each in listener, client, server:
        each.close()


def check_udp(sender, receiver, v6):
    """Datagrams arrive whole, in order and none twice, sent in one call and one by one, of any size."""
    family = socket.AF_INET6 if v6 else socket.AF_INET
    to = receiver.host.socket(family)
    to.bind((ip_of(receiver, v6), 7000))
    to.settimeout(10)
    wanted = []
    for size, n, last in (1200, 40, 77), (1200, 1, 0), (100, 60, 100), (1, 5, 1), (1372 - 20 * v6, 30, 1000):
        client = sender.host.socket(family)
        client.connect((ip_of(receiver, v6), 7000))
        data = os.urandom(size * n + last)
        wanted += [data[i:i + size] for i in range(0, len(data), size)]
        client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size if n > 1 else 0)
        client.send(data)
        client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
        for length in (0, 1, 500, 500, 500, 9, 1400 - 48 - 20 * v6, 3000):
            wanted.append(os.urandom(length))
            client.send(wanted[-1])
        got = [to.recv(65536) for _ in wanted]
        assert [len(piece) for piece in got] == [len(piece) for piece in wanted]
        assert got == wanted
        wanted = []
    to.close()


def check_used(told, on):
    """What is off was not used. What is on was, if the way to it has trains: see the second line."""
    wanted = {"all": SWITCHES, "none": ()}.get(on, (on,))
    needs_trains = ("udp-gro", "tun-gro-write") if on != "all" else ()
    for name, state in told.items():
        assert state.used == 0 or name in wanted
        assert state.used > 0 or name not in wanted or name in needs_trains


def check_all(first, second):
    for v6 in False, True:
        for sender, receiver in (first, second), (second, first):
            check_tcp(sender, receiver, v6)
            check_udp(sender, receiver, v6)


@pytest.mark.parametrize("outer", ["v4", "v6"])
@pytest.mark.parametrize("on", ["all", "none", *SWITCHES])
def test_whichever_are_on_every_byte_arrives(net, on, outer):
    """Both ends use the same: each switch alone, all of them, none."""
    env = {"P2P_OFFLOADS": on}
    wa, wb = net.interface(env=env), net.interface(env=env)
    net.connect(wa, wb, outer == "v6")
    check_all(wa, wb)
    wanted = {"all": SWITCHES, "none": ()}.get(on, (on,))
    for end in wa, wb:
        told = states(end)
        assert {name for name, state in told.items() if state.state == "on"} == set(wanted)
        assert {name for name, state in told.items() if state.state == "off"} == set(SWITCHES) - set(wanted)
        check_used(told, on)


@pytest.mark.parametrize("off", SWITCHES)
def test_without_one_of_them_every_byte_arrives(net, off):
    """One end has been told to do without it by an option; the other end has all four."""
    launcher = net.lab.folder / "p2pwg"
    launcher.write_text(f'#!/bin/sh\nexec "{net.p2pwg}" --no-{off} "$@"\n')
    launcher.chmod(0o755)
    wa, wb = net.interface(launcher), net.interface()
    net.connect(wa, wb)
    check_all(wa, wb)
    told = states(wa)
    assert told[off].state == "off" and told[off].used == 0
    # Only what is received as a train can be written as one.
    assert all(told[name].state == "on" and (told[name].used > 0 or off == "udp-gro")
               for name in SWITCHES if name != off)


def test_a_wrong_list_is_told(net):
    wa = net.interface()
    failed = wa.host.run([net.p2pwg, "-f", "wg1"], env={"P2P_OFFLOADS": "udp-gsx"}, check=False)
    assert failed.returncode == 2 and "udp-gsx" in failed.stderr and "tun-gro-write" in failed.stderr


def test_a_kernel_that_refuses_merged_writes_loses_nothing(net):
    refusing = net.lab.folder / "refusing-p2pwg"
    refusing.write_text(f'#!/bin/sh\nexec {Path(__file__).with_name("refusing.py")} "{net.p2pwg}" "$@"\n')
    refusing.chmod(0o755)
    wa, wb = net.interface(refusing), net.interface()
    net.connect(wa, wb)
    check_all(wa, wb)
    told = states(wa)
    assert told["tun-gro-write"].state == "refused" and told["tun-gro-write"].error == "EINVAL"
    assert told["tun-gro-write"].used == 0 and told["tun-gro-write"].fell_back > 0
    assert all(told[name].state == "on" and told[name].used > 0 for name in SWITCHES if name != "tun-gro-write")


def test_a_path_that_refuses_trains_does_not_slow_the_others(net):
    """The route to b has a small MTU, which UDP_SEGMENT does not take; that to c has not."""
    wa, wb, wc = net.interface(), net.interface(), net.interface()
    small = ["ip", "route", "replace", f"{wb.host.ip}/32", "dev", "eth0", "mtu", "1300"]
    wa.host.run(small)
    net.connect(wa, wb)
    net.connect(wa, wc)
    check_tcp(wa, wb, False)
    after_b = states(wa)["udp-gso"]
    assert after_b.state == "on" and 0 < after_b.refused <= 3 and after_b.fell_back > 50
    check_tcp(wa, wc, False)
    after_c = states(wa)["udp-gso"]
    assert after_c.used > after_b.used + 50 and after_c.refused == after_b.refused
    assert after_c.fell_back <= after_b.fell_back + 5  # b's last acknowledgements
    # Routes change, and it is tried again at once.
    wa.host.run(["ip", "route", "del", f"{wb.host.ip}/32"])
    check_tcp(wa, wb, False)
    assert states(wa)["udp-gso"].used > after_c.used + 50


class Flood:
    """Trains of datagrams to an interface's address, until stopped."""

    def __init__(self, sender, receiver):
        self.socket = sender.host.socket()
        self.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        self.socket.connect((receiver.ip, 9))
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ended.wait(0.001):
            with contextlib.suppress(OSError):  # the other end has no such port
                self.socket.send(bytes(40_000))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        self.socket.close()


def test_an_interface_that_goes_down_is_no_reason_to_give_up_merging(net):
    """b's interface goes down and up under load, so that writes to it fail (EIO)."""
    wa, wb = net.interface(), net.interface()
    net.connect(wa, wb)
    with Flood(wa, wb):
        for _ in range(5):
            before = states(wb)["tun-gro-write"].used
            wait_until(lambda: states(wb)["tun-gro-write"].used > before, 20, "merged writes")
            wb.host.run(["ip", "link", "set", "wg0", "down"])
            wb.host.run(["ip", "link", "set", "wg0", "up"])
    told = states(wb)["tun-gro-write"]
    assert told.state == "on" and told.refused == 0


SIOCETHTOOL, ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM = 0x8946, 0x16, 0x17


def ethtool(host, command, value=0):
    """One of ethtool(8)'s switches of eth0, as it is after the call."""
    box = array.array("I", [command, value])
    request = struct.pack("16sQ16x", b"eth0", box.buffer_info()[0])
    with host.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
    return box[1]


@pytest.mark.parametrize("outer", ["v4", "v6"])
def test_a_card_that_makes_no_checksums_is_no_obstacle(net, outer):
    """Kernels before 6.11 refuse UDP_SEGMENT there (EIO), later ones make the checksums themselves."""
    wa, wb = net.interface(), net.interface()
    ethtool(wa.host, ETHTOOL_STXCSUM, 0)
    assert ethtool(wa.host, ETHTOOL_GTXCSUM) == 0
    net.connect(wa, wb, outer == "v6")
    check_all(wa, wb)
    told = states(wa)["udp-gso"]
    assert told.state == "on" and (told.used > 0) != (told.refused > 0)


# ---- p2pnode -------------------------------------------------------------------------------------

def told_by(node):
    return {offload["name"]: offload["state"] for offload in node.status()["offloads"]}


def test_a_node_is_told_by_its_configuration_and_the_environment_wins(lab, build):
    overlay = Overlay(lab, build, ("alice",), config={"alice": "[offloads]\nudp_gso = no\ntun_gso_read = off\n"})
    overlay.join()
    alice, relay = overlay.nodes["alice"], overlay.relay
    assert told_by(relay) == dict.fromkeys(SWITCHES, "on")
    assert told_by(alice) == {"tun-gso-read": "off", "tun-gro-write": "on", "udp-gso": "off", "udp-gro": "on"}
    alice.program.stop()
    alice.program = alice.host.start(["env", "P2P_OFFLOADS=udp-gso", *alice.argv], name="again")
    wait_until(lambda: (alice.answers() or {}).get("offloads"), 10, "alice is a member again")
    assert told_by(alice) == {"tun-gso-read": "off", "tun-gro-write": "off", "udp-gso": "on", "udp-gro": "off"}
    alice.program.stop()
    failed = alice.host.run(["env", "P2P_OFFLOADS=some", *alice.argv], check=False)
    assert failed.returncode == 1 and "P2P_OFFLOADS" in failed.stderr and "some" in failed.stderr
