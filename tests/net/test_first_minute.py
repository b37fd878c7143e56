"""Machines that have just booted: their clocks begin at zero, and what never was is no time ago.

The nodes run in time namespaces of their own; the network is the usual one of the overlay's tests.
"""

import math
import os
import time

import pytest

from lab import Lab
from overlay import Overlay
from traffic import PingPulse


def just_booted():
    """What starts a program so that its machine has booted within this second, or None."""
    offsets = [f"--{name}=-{math.floor(time.clock_gettime(clock))}"
               for name, clock in (("boottime", time.CLOCK_BOOTTIME), ("monotonic", time.CLOCK_MONOTONIC))]
    return ["unshare", "--time", *offsets]


@pytest.fixture
def booted(build):
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with Lab("first-minute") as lab:
        host = lab.host("probe", lab.network("nowhere"))
        launcher = just_booted()
        if host.run([*launcher, "cut", "-d.", "-f1", "/proc/uptime"], check=False).stdout.strip() not in ("0", "1"):
            pytest.skip("time namespaces are not allowed here")
        yield Overlay(lab, build, launcher=launcher)


def test_paths_and_bytes_are_known_in_the_first_seconds_after_boot(booted):
    alice, bob = booted.join().nodes["alice"], booted.nodes["bob"]

    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(5)
        for node, other in ((alice, "bob"), (bob, "alice")):
            node.wait_for_path(other, "direct", 5)
            node.wait_for_peer(other, lambda peer: int(peer["rx_bytes"]) > 0 and int(peer["tx_bytes"]) > 0 and
                               peer["handshake_ms"] is not None, "has sent and got, in a session", 5)
        assert alice.status()["uptime_ms"] < 10_000
