"""The network under a node changes: traffic flows again within two seconds, and the gap is printed.

The topology and the stream are those of test_failover.py, where a new address and a rebooted NAT are, too; what
is counted here begins when there is a network again.
"""

import signal
import time

import pytest

from lab import wait_until
from reach import host_of
from test_failover import HOME, World

pytestmark = pytest.mark.alone

AGAIN = 2.0   # seconds from when there is a network again
ASLEEP = 31.0  # longer than NATs' and paths' patience


@pytest.fixture
def world(lab, build):
    world = World(lab, build, {name: HOME for name in ("alice", "bob")})
    yield world
    world.close()


def wait_until_silent(world, seconds):
    """So long nothing has been answered."""
    def is_silent():
        return time.monotonic() - max(world.pulse.answered.copy().values()) > seconds
    wait_until(is_silent, 20 + 2 * seconds, f"{seconds} s of silence", 0.05)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_the_default_route_moves_to_another_interface(world, lab, measured, who):
    """As from the cable to Wi-Fi: the first address stays, and leads nowhere any more. Direct is direct again,
    by the new NAT: nothing that left from the old address has taken the port there."""
    node, peer = getattr(world, who), world.bob if who == "alice" else world.alice
    other = lab.router("other", world.overlay.internet, nat="port-restricted")

    def move():
        world.overlay.routers[who].block_udp()
        node.host._commands(["route del default"])
        node.host.attach(other.inside)
    measured(f"gap: new default route of {who}", world.gap(move), AGAIN)
    world.wait_for_direct(10)
    assert host_of(peer.peer(who)["endpoint"]) == other.ip


def test_a_better_default_route_appears_beside_the_first(world, lab, measured):
    """The cable is in, and Wi-Fi goes on: what is sent goes by the new way, and nothing is lost on the old."""
    first, host = world.overlay.routers["alice"], world.alice.host
    address = host.ip
    other = lab.router("other", world.overlay.internet, nat="port-restricted")
    gateway, other.inside.gateway = other.inside.gateway, None  # no route by itself
    host.attach(other.inside)
    host._commands([f"route add default via {first.inside.gateway} metric 100", "route del default metric 0"])
    wait_until(lambda: host.run(["ping", "-c1", "-W1", gateway], check=False).returncode == 0, 10, "the cable works")
    world.pulse.keeps_going(50)

    measured("gap: better default route", world.gap(lambda: host._commands([f"route add default via {gateway}"])), AGAIN)
    def flows():
        return other.run(["conntrack", "-L", "-p", "udp"]).stdout
    wait_until(lambda: world.overlay.routers["bob"].ip in flows(), 10, "alice sends by the new way")
    world.wait_for_direct(10)
    # Nothing left by it from the first address, where a NAT would give the port to that.
    assert f"src={address} " not in flows(), flows()


@pytest.mark.parametrize("seconds", [1, 8])
def test_the_interface_goes_down_and_comes_up_again(world, measured, seconds):
    gateway = world.overlay.routers["alice"].inside.gateway
    world.alice.host._commands(["link set eth0 down"])
    wait_until_silent(world, seconds)
    world.alice.host._commands(["link set eth0 up", f"route add default via {gateway}"])
    measured(f"gap: interface down for {seconds} s, after it is up", world.pulse.gap_after(time.monotonic(), 20), AGAIN)
    world.pulse.keeps_going(200)
    world.wait_for_direct(30)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_node_sleeps_and_wakes(world, measured, who):
    """Its clock, which counts time asleep as well, jumps; what was due meanwhile is due at once."""
    program = getattr(world, who).program
    program.signal(signal.SIGSTOP)
    try:
        wait_until_silent(world, ASLEEP)
    finally:
        program.signal(signal.SIGCONT)
    measured(f"gap: {who} slept for {ASLEEP:.0f} s, after waking", world.pulse.gap_after(time.monotonic(), 20), AGAIN)
    world.pulse.keeps_going(200)
    world.wait_for_direct(30)
