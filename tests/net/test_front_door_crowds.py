"""The front door in a crowd: who names no host, or one that nobody has, costs those who do nothing; who names one that is there
is served; and nothing stays of either.

      control    relay (public node, front door)    outside: ten addresses of a crowd, one of an honest visitor
         |          |                                  |
      ---+----------+---- internet 198.51.100.0/24 ----+---- alice (a member with a web server)
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
SLOW, BURST, SERVED = 10_000, 100_000, 20_000
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
    assert re.search(rf"^{n} reset, 0 served, 0 otherwise$", program.output(), re.MULTILINE), program.output()
    assert len(took) > 10
    wait_until(lambda: refused(town) - before == n, 5, lambda: f"each is counted: {refused(town) - before} of {n}")
    wait_until(lambda: n_descriptors(town) <= open_before, 10,
               lambda: f"no descriptor stays: {n_descriptors(town)}, {open_before} before")


def burst_of_served(town, n, measured):
    """All are served, and what they cost is given back, but for connections that wait for the next (at most 64)."""
    before, open_before = refused(town), n_descriptors(town)
    program = town.outside.start([sys.executable, CROWD, "served", town.relay.host.ip, 80, n, *SOURCES], name="crowd")
    begin = time.monotonic()
    took = honest_visits(town, program)
    measured(f"a burst of {n} for a host that is there, until the last is gone", time.monotonic() - begin, 120)
    measured(f"slowest of {len(took)} honest visits beside", max(took), 5)
    assert re.search(rf"^0 reset, {n} served, 0 otherwise$", program.output(), re.MULTILINE), program.output()
    assert refused(town) == before
    wait_until(lambda: n_descriptors(town) <= open_before + 64, 10,
               lambda: f"no descriptor stays: {n_descriptors(town)}, {open_before} before")


def test_ten_thousand_slow_visitors_delay_nobody_and_leave_nothing(town, measured):
    crowd(town, "slow", SLOW, measured)


def test_a_hundred_thousand_visitors_in_a_burst_delay_nobody_and_leave_nothing(town, measured):
    crowd(town, "burst", BURST, measured)


def test_a_burst_for_a_host_of_the_configuration_is_served_whole(town, measured):
    burst_of_served(town, SERVED, measured)


def test_a_burst_for_a_host_of_a_member_is_served_whole(lab, build, measured):
    overlay = Overlay(lab, build, members=("alice",)).join_with_front_door("tls_port = 9443\n[frontdoor]\nmax_visitors_source = 2000\n")
    overlay.web = web.Web(overlay.nodes["alice"], PAGE, address="127.0.0.1")
    for source in SOURCES:
        overlay.outside.run(["ip", "address", "add", f"{source}/24", "dev", "eth0"])
    overlay.control.admin("host", "add", "alice", "app.demo")
    overlay.nodes["alice"].ctl("expose", "http://app.demo", "8080")
    wait_until(lambda: web.curl(overlay.outside, overlay.relay.host.ip, overlay.web, "http://app.demo/").stdout == PAGE, 10, "live")
    burst_of_served(overlay, SERVED // 2, measured)
