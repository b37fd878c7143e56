"""p2pwg with the kernel's WireGuard, in a virtual machine with Debian's kernel:

    a (p2pwg) ---+--- internet ---+--- kernel (QEMU, wireguard.ko)
                 |                |
    c (p2pwg) ---+                +--- b (wireguard-go)

The machine is booted once for all tests here; each test makes its interfaces anew.
"""

import hashlib
import os

import pytest

from lab import Lab, wait_until
from vm import Machine, find_kernel
from wireguard import Interface, new_keys

MODULES = ["wireguard"]
GO = "/usr/bin/wireguard-go"


@pytest.fixture(scope="module")
def world(build):
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    kernel = find_kernel(MODULES)
    if not kernel:
        pytest.skip("no installed kernel has wireguard.ko (Debian: linux-image-amd64)")
    with Lab("kernel") as lab:
        internet = lab.network("internet", v6="2001:db8::/64")
        lab.a, lab.b, lab.c = (lab.host(name, internet) for name in "abc")
        lab.kernel = Machine(internet, "kernel", MODULES, ["wg"], kernel)
        lab.p2pwg = build.program("p2pwg")
        yield lab
        lab.kernel.close()


class Tunnel:
    """a's interface and the kernel's; neither knows the other's endpoint yet."""

    def __init__(self, world):
        self.vm = world.kernel
        self.host = world.a
        self.keys = new_keys()
        self.ours = Interface(world.a, world.p2pwg, ["10.9.0.1/24", "fd09::1/64"])
        self.ours.up()
        self.vm.run("ip link add wg0 type wireguard")
        self.vm.run(f"echo {self.keys.secret} >/tmp/key; wg set wg0 listen-port 51820 private-key /tmp/key")
        self.vm.run("ip addr add 10.9.0.2/24 dev wg0; ip -6 addr add fd09::2/64 dev wg0")
        self.vm.run("ip link set wg0 up")

    def ours_knows(self, endpoint=None, **kwargs):
        self.ours.add_peer(self.keys.public, endpoint, "10.9.0.2/32,fd09::2/128", **kwargs)

    def kernel_knows(self, endpoint=None, psk=None):
        line = f"wg set wg0 peer {self.ours.keys.public} allowed-ips 10.9.0.1/32,fd09::1/128"
        if psk:
            line = f"echo {psk} >/tmp/psk; {line} preshared-key /tmp/psk"
        self.vm.run(line + (f" endpoint {endpoint}" if endpoint else ""))

    def kernel_endpoint(self, v6=False):
        return f"[{self.vm.ip6}]:51820" if v6 else f"{self.vm.ip}:51820"

    def kernel_sees(self):
        """The kernel's idea of where we are."""
        return self.vm.run("wg show wg0 endpoints").split()[1]

    def ping(self):
        self.ours.ping("10.9.0.2", 3, timeout=15)
        self.ours.ping("fd09::2", 3, timeout=15)

    def kernel_ping(self):
        self.vm.run("ping -c 1 -W 5 10.9.0.1")
        self.vm.run("ping -6 -c 1 -W 5 fd09::1")

    def close(self):
        self.vm.run("ip link del wg0")
        self.ours.program.stop()


@pytest.fixture
def tunnel(world):
    tunnel = Tunnel(world)
    yield tunnel
    tunnel.close()


def start_ping(host, ip):
    """One echo each 100 ms for 125 s; every one must be answered."""
    return host.start(["ping", "-n", "-i", "0.1", "-c", "1250", "-W", "2", ip], name=f"ping-{ip}")


def kernel_handshakes(vm):
    return {line.split()[0]: int(line.split()[1])
            for line in vm.run("wg show wg0 latest-handshakes").splitlines()}


@pytest.mark.slow
def test_sessions_get_new_keys_after_two_minutes_without_losing_a_packet(world, tunnel):
    """REKEY_AFTER_TIME, 120 s after the handshake, in both roles: a begins with the kernel and with
    wireguard-go, both of which begin with c."""
    vm, a = tunnel.vm, tunnel.ours
    go = Interface(world.b, GO, "10.9.0.4/24")
    c = Interface(world.c, world.p2pwg, "10.9.0.3/24")
    tunnel.ours_knows(tunnel.kernel_endpoint())
    tunnel.kernel_knows()
    a.add_peer(go, go.endpoint())
    go.add_peer(a)
    go.add_peer(c, c.endpoint())
    c.add_peer(go)
    c.add_peer(tunnel.keys.public, allowed_ips="10.9.0.2/32")
    vm.run(f"wg set wg0 peer {c.keys.public} allowed-ips 10.9.0.3/32 endpoint {c.endpoint()}")
    go.up()
    c.up()

    pings = [start_ping(world.a, "10.9.0.2"), start_ping(world.a, "10.9.0.4"), start_ping(world.b, "10.9.0.3")]
    vm.run("ping -c 125 -W 2 10.9.0.3 >/tmp/ping 2>&1 &")
    public = tunnel.keys.public
    wait_until(lambda: kernel_handshakes(vm).get(c.keys.public), 10, "the kernel has a session with c")
    wait_until(lambda: all(p.handshake for p in [*a.peers().values(), *c.peers().values()]), 10, "sessions")
    first = {**{("a", k): p.handshake for k, p in a.peers().items()},
             **{("c", k): p.handshake for k, p in c.peers().items()}}

    for ping in pings:
        ping.wait(150)
        assert " 0% packet loss" in ping.output(), ping.tail(5)
    wait_until(lambda: "packet loss" in vm.run("cat /tmp/ping"), 20, "the kernel's ping is done")
    assert " 0% packet loss" in vm.run("tail -n 3 /tmp/ping")
    second = {**{("a", k): p.handshake for k, p in a.peers().items()},
              **{("c", k): p.handshake for k, p in c.peers().items()}}
    assert set(first) == {("a", public), ("a", go.keys.public), ("c", public), ("c", go.keys.public)}
    for session, begun in first.items():
        assert 119 <= second[session] - begun <= 127, (session, begun, second[session])
    go.program.stop()
    c.program.stop()


@pytest.mark.parametrize("outer", ["v4", "v6"])
def test_we_begin(tunnel, outer):
    psk = new_keys().secret
    tunnel.kernel_knows(psk=psk)
    tunnel.ours_knows(tunnel.kernel_endpoint(outer == "v6"), psk=psk)
    tunnel.ping()
    tunnel.kernel_ping()
    assert tunnel.kernel_sees() == tunnel.ours.endpoint(outer == "v6")


@pytest.mark.parametrize("outer", ["v4", "v6"])
def test_the_kernel_begins(tunnel, outer):
    psk = new_keys().secret
    tunnel.ours_knows(psk=psk)
    tunnel.kernel_knows(tunnel.ours.endpoint(outer == "v6"), psk=psk)
    tunnel.kernel_ping()
    tunnel.ping()
    assert tunnel.ours.peers()[tunnel.keys.public].endpoint == tunnel.kernel_endpoint(outer == "v6")


def test_the_kernel_follows_us(tunnel, world):
    tunnel.kernel_knows()
    tunnel.ours_knows(tunnel.kernel_endpoint())
    tunnel.ping()
    before = world.a.ip
    world.a.move("198.51.100.99")
    tunnel.ping()
    assert tunnel.kernel_sees() == "198.51.100.99:51820"
    tunnel.kernel_ping()
    tunnel.ours.set("listen-port", 40000)
    tunnel.ping()
    assert tunnel.kernel_sees() == "198.51.100.99:40000"
    tunnel.kernel_ping()
    world.a.move(before)


def test_we_follow_the_kernel(tunnel, world):
    tunnel.kernel_knows(tunnel.ours.endpoint())
    tunnel.ours_knows()
    tunnel.kernel_ping()
    tunnel.vm.move(150)
    tunnel.kernel_ping()
    assert tunnel.ours.peers()[tunnel.keys.public].endpoint == "198.51.100.150:51820"
    tunnel.ping()


def test_new_keys_of_either_side_make_a_new_session(tunnel):
    tunnel.kernel_knows(tunnel.ours.endpoint())
    tunnel.ours_knows(tunnel.kernel_endpoint())
    tunnel.ping()
    # The peer anew: the kernel has forgotten the session, we have not.
    tunnel.vm.run(f"wg set wg0 peer {tunnel.ours.keys.public} remove")
    tunnel.kernel_knows(tunnel.ours.endpoint())
    tunnel.kernel_ping()
    tunnel.ping()
    # And the other way round.
    tunnel.ours.set("peer", tunnel.keys.public, "remove")
    tunnel.ours_knows(tunnel.kernel_endpoint())
    tunnel.ping()
    tunnel.kernel_ping()


def test_a_stream_each_way_arrives_whole(tunnel):
    """Full-sized packets, superpackets and all, in both directions."""
    tunnel.kernel_knows(tunnel.ours.endpoint())
    tunnel.ours_knows(tunnel.kernel_endpoint())
    tunnel.ping()
    data = os.urandom(4_000_000)
    tunnel.vm.run("(nc -l -p 7000 | tee /tmp/got | sha256sum >/tmp/sum) </dev/null >/dev/null 2>&1 &")
    tunnel.vm.run("until netstat -tln | grep -q :7000; do sleep 0.1; done")
    sender = tunnel.host.socket(kind=1)
    sender.settimeout(60)
    sender.connect(("10.9.0.2", 7000))
    sender.sendall(data)
    sender.close()
    expected = hashlib.sha256(data).hexdigest()
    wait_until(lambda: expected in tunnel.vm.run("cat /tmp/sum"), 60, "the kernel has it all")

    listener = tunnel.host.socket(kind=1)
    listener.bind(("10.9.0.1", 7001))
    listener.listen(1)
    listener.settimeout(60)
    tunnel.vm.run("nc 10.9.0.1 7001 </tmp/got >/dev/null 2>&1 &")
    connection, _ = listener.accept()
    connection.settimeout(60)
    got = hashlib.sha256()
    while piece := connection.recv(1 << 16):
        got.update(piece)
    assert got.hexdigest() == expected
    connection.close()
