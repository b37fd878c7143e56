"""A Session is rebuilt whole after any failure, and packets do not notice.

SIGUSR1 fails an actor of the running Session, so what follows is what follows a failure: the
stage and the control connection are torn down, a new Session starts after the back-off. The topology is
that of overlay.Overlay: alice and bob behind port-restricted NATs, control and a relay on the internet.
"""

import signal
import time

import pytest

from overlay import Overlay
from traffic import Echo, Pulse


@pytest.fixture
def overlay(lab, build):
    return Overlay(lab, build).join()


def fail_an_actor(node, times=1):
    """Fails an actor and waits until the next Session is connected, so many times."""
    for _ in range(times):
        before = node.program.output().count("session failed")
        node.program.signal(signal.SIGUSR1)
        node.wait_for(lambda s: node.program.output().count("session failed") > before, "session failed")
        node.wait_for(lambda s: s["state"] == "running" and s["control"]["connected"], "a new session")


def test_a_failing_actor_costs_no_packet_on_a_direct_path(overlay, measured):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        alice.wait_for_path("bob", "direct")
        bob.wait_for_path("alice", "direct")
        pulse.keeps_going(50)
        begin = time.monotonic()
        fail_an_actor(alice, times=3)
        fail_an_actor(bob)
        alice.wait_for_path("bob", "direct")
        bob.wait_for_path("alice", "direct")
        pulse.keeps_going(50)
        measured("longest gap while sessions are rebuilt, direct", pulse.longest_gap(since=begin))
        lost = pulse.lost()

    assert lost == 0


def test_a_failing_actor_costs_no_packet_on_the_relay(lab, build):
    overlay = Overlay(lab, build, ("bob", "carol")).join()
    bob, carol = overlay.nodes["bob"], overlay.nodes["carol"]

    with Echo(bob.host), Pulse(carol.host, bob.ip) as pulse:
        pulse.first_answer()
        pulse.keeps_going(50)
        fail_an_actor(carol)
        fail_an_actor(bob)
        pulse.keeps_going(100)
        assert carol.peer("bob")["path"] == "relay"
        lost = pulse.lost()

    assert lost == 0


def test_sessions_that_fail_in_a_row_wait_longer_each_time(overlay):
    alice = overlay.nodes["alice"]

    fail_an_actor(alice, times=4)

    delays = [int(line.split("next session in ")[1].split()[0])
              for line in alice.program.output().splitlines() if "next session in " in line]
    assert len(delays) == 4
    assert delays[0] < delays[1] < delays[2] < delays[3]
    assert delays[0] >= 200 and delays[3] >= 1600


def test_a_deleted_interface_is_made_again(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    alice.host.run(["ip", "link", "delete", "p2p0"])

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
