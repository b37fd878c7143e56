"""A node whose WireGuard is the kernel's: wireguard = kernel, in a virtual machine with Debian's kernel.

        control   relay (public node)   alice (QEMU, wireguard.ko)
           |        |                      |
        ---+--------+------- internet -----+--------+
                                                    |
                                         office [port-restricted]
                                                    |
                                                   bob (in-process)

The machine is booted once for all tests here; the nodes go on, too, and each test restores what it cuts.
"""

import hashlib
import json
import os
import time
from contextlib import contextmanager

import pytest

from lab import Lab, LabError, wait_until
from overlay import Node, Overlay
from traffic import PingPulse
from vm import Machine, find_kernel

MODULES = ["wireguard"]
PLUGIN = "/usr/lib/x86_64-linux-gnu/libwebsockets-evlib_uv.so"  # of p2pnode's WebSocket library
IPROUTE = "/bin/ip"  # busybox has one that does not show the MTU
AFTER_UDP_CUT = 3.0  # emulated
FILE_LEN = 1_000_000


class MachineNode(Node):
    """p2pnode in a virtual machine: what Node does with a host, by the machine's line."""

    def __init__(self, build, vm, config=""):
        self.build, self.vm, self.name = build, vm, vm.name
        self.vm.run(f"mkdir -p /etc/p2pnode /var/lib/p2pnode; printf '[node]\\nname = {vm.name}\\n"
                    f"wireguard = kernel\\n{config}' >/etc/p2pnode/p2pnode.conf")

    def start(self):
        self.vm.run(f"{self.build.program('p2pnode')} --socket /tmp/node.sock >>/tmp/node.log 2>&1 & "
                    "echo $! >/tmp/node.pid")
        wait_until(self.answers, 60, f"{self.name}: p2pnode answers on its socket")
        return self

    def ctl(self, *words, check=True, input="", timeout=60.0):
        line = f"printf '%s' '{input}' | {self.build.program('p2pctl')} --socket /tmp/node.sock {' '.join(words)}"
        return self.vm.run(line, check=check, timeout=timeout)

    def status(self):
        return json.loads(self.ctl("status", "--json", check=False))

    def answers(self):
        if not self.vm.succeeds("kill -0 $(cat /tmp/node.pid)"):
            raise LabError(f"{self.name}: p2pnode ended\n{self.log()}")
        try:
            return self.status()
        except ValueError:
            return None

    def log(self):
        return self.vm.run("cat /tmp/node.log")

    def end(self, signal="TERM"):
        self.vm.run(f"kill -{signal} $(cat /tmp/node.pid)")
        wait_until(lambda: not self.vm.succeeds("kill -0 $(cat /tmp/node.pid)"), 30, f"{self.name}: p2pnode ended")

    def wg(self, what):
        return [line.split() for line in self.vm.run(f"wg show p2p0 {what}", check=False).splitlines()]


    def wait_for_straight(self, other):
        """Until WireGuard sends to the other's WireGuard, and not to the loopback."""
        key = other.status()["self"]["node_key"]

        def straight():
            endpoint = next((e for k, e in self.wg("endpoints") if k == key), "(none)")
            return endpoint != "(none)" and not endpoint.startswith("127.")
        wait_until(straight, 30, f"{self.name}: straight to {other.name}", 0.1)

    def loopback_packets(self):
        """Received on lo since boot."""
        return int(self.vm.run("cat /sys/class/net/lo/statistics/rx_packets"))


@pytest.fixture(scope="module")
def world(build):
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    kernel = find_kernel(MODULES)
    if not kernel:
        pytest.skip("no installed kernel has wireguard.ko (Debian: linux-image-amd64)")
    with Lab("hosts-kernel") as lab:
        overlay = Overlay(lab, build, ("bob",))
        programs = ["wg", IPROUTE, build.program("p2pnode"), build.program("p2pctl")]
        overlay.vm = Machine(overlay.internet, "alice", MODULES, programs, kernel, [PLUGIN], 768)
        alice = MachineNode(build, overlay.vm).start()
        overlay.nodes["alice"] = alice
        for node in overlay.nodes.values():
            node.join(overlay.control.link())
        overlay.wait_until_known(60)
        yield overlay
        overlay.vm.close()


@pytest.fixture
def pair(world):
    alice, bob = world.nodes["alice"], world.nodes["bob"]
    yield alice, bob
    log = alice.log()
    assert "Sanitizer" not in log and "runtime error" not in log, log


@contextmanager
def udp_cut(world):
    """No UDP between bob and the world."""
    world.routers["bob"].block_udp()
    try:
        yield
    finally:
        world.routers["bob"].unblock_udp()


def transferred(alice, bob):
    """A file from bob to the machine and back: whole each way."""
    vm, data = alice.vm, os.urandom(FILE_LEN)
    vm.run("(nc -l -p 7000 | tee /tmp/got | sha256sum >/tmp/sum) </dev/null >/dev/null 2>&1 &")
    vm.run("until netstat -tln | grep -q :7000; do sleep 0.1; done")
    with bob.host.socket(kind=1) as sender:
        sender.settimeout(60)
        sender.connect((alice.ip, 7000))
        sender.sendall(data)
    expected = hashlib.sha256(data).hexdigest()
    wait_until(lambda: expected in vm.run("cat /tmp/sum"), 60, "the machine has it all")

    with bob.host.socket(kind=1) as listener:
        listener.bind((bob.ip, 7001))
        listener.listen(1)
        listener.settimeout(60)
        vm.run(f"nc {bob.ip} 7001 </tmp/got >/dev/null 2>&1 &")
        connection, _ = listener.accept()
        connection.settimeout(60)
        got = hashlib.sha256()
        with connection:
            while piece := connection.recv(1 << 16):
                got.update(piece)
    return got.hexdigest() == expected


def test_the_interface_is_the_kernels_and_status_says_so(pair):
    alice, _ = pair

    assert alice.status()["wireguard"] == "kernel"
    assert len(alice.wg("peers")) == 2
    assert alice.ip in alice.vm.run("ip addr show dev p2p0")


def test_packets_go_by_relay_when_udp_is_blocked(world, pair):
    alice, bob = pair

    with udp_cut(world):
        with PingPulse(bob.host, alice.ip) as pulse:
            pulse.first_answer(30)
            alice.wait_for_path("bob", "relay", 30)
        assert transferred(alice, bob)

        peer = alice.wait_for_peer("bob", lambda peer: int(peer["rx_bytes"]) > FILE_LEN)
        assert peer["path"] == "relay" and int(peer["tx_bytes"]) > FILE_LEN and peer["handshake_ms"] is not None


def test_packets_go_directly_and_back_to_the_relay_when_udp_is_cut(world, pair, measured):
    alice, bob = pair

    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(30)
        bob.wait_for_path("alice", "direct", 30)
        alice.wait_for_path("bob", "direct", 30)
        pulse.keeps_going(50)
        assert transferred(alice, bob)
        with udp_cut(world):
            measured("gap after UDP was cut, kernel", pulse.gap_after(time.monotonic()), AFTER_UDP_CUT)
            bob.wait_for_path("alice", "relay", 30)


def test_the_kernel_is_told_by_a_route_how_large_packets_may_be(pair):
    """1500 bytes outside: 1440 inside, where 1280 is what it began with."""
    alice, bob = pair

    def route_mtus():
        return [alice.vm.run(f"{IPROUTE} route get {ip}; true") for ip in (bob.ip, bob.ip6)]

    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(30)
        alice.wait_for_peer("bob", lambda peer: peer["path"] == "direct" and peer["mtu"] == 1440, "has MTU 1440", 60)
        wait_until(lambda: all("mtu 1440" in words for words in route_mtus()), 10, "the routes say so")


def test_packets_of_a_direct_path_pass_by_the_node(pair):
    """Kernel to in-process: neither direction goes through the loopback, however the NAT is."""
    alice, bob = pair

    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(30)
        bob.wait_for_path("alice", "direct", 30)
        alice.wait_for_straight(bob)
        before = alice.loopback_packets()
        pulse.keeps_going(200)
        assert pulse.lost() == 0
        through_loopback = alice.loopback_packets() - before
    assert through_loopback < 20

    # The emulated machine can be too busy with the file to answer probes, and leave the path meanwhile:
    # once it must not.
    for _ in range(4):
        with PingPulse(bob.host, alice.ip) as pulse:
            pulse.first_answer(30)
            bob.wait_for_path("alice", "direct", 30)
            alice.wait_for_straight(bob)
        before = alice.loopback_packets()
        assert transferred(alice, bob)
        through_loopback = alice.loopback_packets() - before
        if through_loopback < 400:
            break
    assert through_loopback < 400  # of some thousand
    alice.wait_for_path("bob", "direct", 30)
    bob.wait_for_path("alice", "direct", 30)


def test_a_node_that_crashed_takes_its_interface_back(pair):
    alice, bob = pair
    alice.end("KILL")
    assert alice.wg("peers")  # what it left

    alice.start()

    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(30)
    alice.vm.run(f"ping -c 1 -W 5 {bob.ip}")


def test_a_node_that_ends_removes_its_interface(pair):
    alice, bob = pair
    alice.end()
    assert not alice.vm.succeeds("ip link show dev p2p0")

    alice.start()

    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(30)


def test_a_deleted_interface_is_made_again(pair):
    alice, bob = pair
    alice.vm.run("ip link del dev p2p0")

    wait_until(lambda: alice.wg("peers"), 30, "it is there again, with peers")
    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(30)


def test_an_interface_of_somebody_else_is_not_touched(pair):
    alice, _ = pair
    alice.end()
    alice.vm.run("ip link add p2p0 type wireguard; wg genkey >/tmp/key; wg set p2p0 private-key /tmp/key")
    try:
        alice.vm.run(f"timeout 10 {alice.build.program('p2pnode')} --socket /tmp/other.sock >/tmp/refused 2>&1",
                     check=False)
        assert "has another key than this node" in alice.vm.run("cat /tmp/refused")
        assert "interface = " in alice.vm.run("cat /tmp/refused")
        assert alice.vm.succeeds("ip link show dev p2p0")
    finally:
        alice.vm.run("ip link del p2p0")
        alice.start()


def test_a_kernel_without_wireguard_is_said_with_the_remedy(lab, build):
    """That of the machine the tests run on, which has none."""
    overlay = Overlay(lab, build, ("bob",), config={"bob": "wireguard = kernel\n"})
    host = overlay.nodes["bob"].host
    if host.run(["ip", "link", "add", "probe", "type", "wireguard"], check=False).returncode == 0:
        pytest.skip("this kernel has WireGuard")

    done = overlay.nodes["bob"].ctl("join", "-", input=overlay.control.link() + "\n", check=False)

    text = done.stdout + done.stderr + overlay.nodes["bob"].program.output()
    assert "modprobe wireguard" in text and "wireguard = in-process" in text and "p2p0" in text
