"""The front door in a crowd: who names no host, or one that nobody has, costs those who do nothing, and nothing stays of him.

      control    relay (public node, front door)    outside: ten addresses of a crowd, one of an honest visitor
         |          |                                  |
      ---+----------+---- internet 198.51.100.0/24 ----+
"""

import os
import re
import sys
import time
from pathlib import Path

import pytest

import web
from lab import wait_until
from overlay import Overlay

pytestmark = [pytest.mark.alone, pytest.mark.slow]

CROWD = Path(__file__).parent / "crowd.py"
PAGE = "hello\n"
SLOW, BURST = 10_000, 100_000
SOURCES = [f"198.51.100.{n}" for n in range(100, 110)]
# What became of a visitor that was refused, as the status counts it.
CAUSES = ("too slow", "left early", "unknown host", "all places taken", "too many of one source", "no file descriptor")


@pytest.fixture
def town(lab, build):
    overlay = Overlay(lab, build, members=()).join_with_front_door(
        "tls_port = 9443\n[frontdoor]\nhost = app.demo 127.0.0.1:8080\nmax_visitors_source = 2000\n")
    overlay.web = web.Web(overlay.relay, PAGE, address="127.0.0.1")
    for source in SOURCES:
        overlay.outside.run(["ip", "address", "add", f"{source}/24", "dev", "eth0"])
    return overlay


def refused(town):
    drops = town.relay.status()["drops"]
    return sum(int(drops[f"front door: {cause}"]) for cause in CAUSES)


def n_descriptors(town):
    return len(os.listdir(f"/proc/{town.relay.program.pid}/fd"))


def honest_visits(town, crowd):
    """Until the crowd is gone; how long each took, in seconds."""
    took = []
    while crowd.running:
        begin = time.monotonic()
        assert web.curl(town.outside, town.relay.host.ip, town.web, "http://app.demo/").stdout == PAGE
        took.append(time.monotonic() - begin)
    return took


def crowd(town, how, n, measured):
    """An honest visitor comes all the while; then everything is as it was before."""
    assert web.curl(town.outside, town.relay.host.ip, town.web, "http://app.demo/").stdout == PAGE
    before, open_before = refused(town), n_descriptors(town)
    program = town.outside.start([sys.executable, CROWD, how, town.relay.host.ip, 80, n, *SOURCES], name="crowd")
    begin = time.monotonic()
    took = honest_visits(town, program)
    measured(f"{n} {how} visitors, until the last is gone", time.monotonic() - begin, 120)
    measured(f"{n} {how} visitors, slowest of {len(took)} honest visits", max(took), 2)
    assert re.search(rf"^{n} reset, 0 otherwise$", program.output(), re.MULTILINE), program.output()
    assert len(took) > 10
    wait_until(lambda: refused(town) - before == n, 5, lambda: f"each is counted: {refused(town) - before} of {n}")
    wait_until(lambda: n_descriptors(town) <= open_before, 10,
               lambda: f"no descriptor stays: {n_descriptors(town)}, {open_before} before")


def test_ten_thousand_slow_visitors_delay_nobody_and_leave_nothing(town, measured):
    crowd(town, "slow", SLOW, measured)


def test_a_hundred_thousand_visitors_in_a_burst_delay_nobody_and_leave_nothing(town, measured):
    crowd(town, "burst", BURST, measured)
