"""What a member publishes: p2pctl expose, a grant, and visitors come, from behind any NAT.

      control    relay (public node, front door)    outside
         |          |                                  |
      ---+----------+---- internet 198.51.100.0/24 ----+--------+
                                                                |
                                                     home [port-restricted]
                                                                |
                                                              alice: a web server, at 127.0.0.1 alone

What may be published by whom, tests/unit/control/test_host_grants.c has; here it is all of it together.
"""

import json

import pytest

import web
from lab import wait_until
from overlay import Overlay

PAGE = "hello from alice, behind her NAT\n"


@pytest.fixture
def town(lab, build):
    """The network as drawn; alice publishes fixed.demo by her configuration."""
    overlay = Overlay(lab, build, members=("alice",))
    alice, relay = overlay.nodes["alice"], overlay.relay
    relay.config.write_text(relay.config.read_text() + "[frontdoor]\nhost = taken.demo 127.0.0.1:9\n")
    alice.config.write_text(alice.config.read_text() + "[expose]\nservice = http://fixed.demo 8080\n")
    for node in (relay, alice):
        node.kill()
        node.start()
    overlay.join()
    overlay.outside = lab.host("outside", overlay.internet)
    overlay.web = web.Web(alice, PAGE, address="127.0.0.1")
    return overlay


def curl(town, url, *options, check=True):
    return web.curl(town.outside, town.relay.host.ip, town.web, url, *options, check=check)


def is_served(town, url):
    return curl(town, url, check=False).stdout == PAGE


def is_reset(town, url):
    done = curl(town, url, check=False)
    return done.returncode in (35, 52, 56)


def states(node):
    return {one["host"]: one["state"] for one in json.loads(node.ctl("exposures", "--json").stdout)["exposures"]}


def wait_for_state(node, host, state):
    wait_until(lambda: states(node).get(host) == state, 10, lambda: f"{host}: {state}; {states(node)}")


def test_a_host_is_published_granted_and_taken_back(town):
    alice, relay, control = town.nodes["alice"], town.relay, town.control

    # What is not granted waits, and says what the admin has to do.
    said = alice.ctl("expose", "app.demo", "8080").stdout
    assert "kept, but not live yet: not granted" in said and "p2pctl admin host add alice 'app.demo'" in said
    alice.ctl("unexpose", "https://app.demo")
    assert json.loads(alice.ctl("expose", "https://app.demo", "8443", "--json").stdout)["state"] == "not granted"
    assert is_reset(town, "http://app.demo/")
    waiting = [host["host"] for host in control.admin("host", "list")["hosts"] if not host["granted"]]
    assert sorted(waiting) == ["http://app.demo", "http://fixed.demo", "https://app.demo"]

    # Granted, it is live at once, also what the configuration says.
    control.admin("host", "add", "alice", "*.demo")
    for host in ("http://app.demo", "https://app.demo", "http://fixed.demo"):
        wait_for_state(alice, host, "live")
        wait_until(lambda: is_served(town, f"{host}/"), 10, host)
    assert alice.ctl("expose", "http://b.demo", "8080").stdout.startswith("http://b.demo is live")
    assert is_served(town, "http://b.demo/")

    # Visitors of a door are not led to the door.
    looped = relay.ctl("expose", "loop.demo", "443", check=False)
    assert looped.returncode == 1 and "127.0.0.1:443 is the front door itself; name the port of the server" in looped.stderr

    # The configuration of the door goes before, that of alice is changed there alone.
    alice.ctl("expose", "taken.demo", "8080")
    assert not is_served(town, "http://taken.demo/")
    refused = alice.ctl("unexpose", "fixed.demo", check=False)
    assert refused.returncode == 1 and f"{alice.config}:" in refused.stderr and "take it out there" in refused.stderr
    assert "stands in the configuration" in alice.ctl("expose", "http://fixed.demo", "1", check=False).stderr

    # What p2pctl has exposed is there again after a restart, also of control.
    wait_until(lambda: "taken.demo" in (alice.state / "map.json").read_text(), 10, "the map is kept")
    control.kill()
    alice.kill()
    alice.start()
    wait_for_state(alice, "https://app.demo", "live")  # by the cached map
    wait_until(lambda: is_served(town, "https://app.demo/"), 20, "app.demo, without control")
    control.start()
    alice.wait_for_control()

    # What is revoked, or unexposed, ends at once.
    alice.ctl("unexpose", "http://app.demo")
    wait_until(lambda: is_reset(town, "http://app.demo/"), 10, "unexposed")
    assert is_served(town, "https://app.demo/")
    control.admin("host", "remove", "alice", "*.demo")
    wait_for_state(alice, "https://app.demo", "not granted")
    wait_until(lambda: is_reset(town, "https://app.demo/"), 10, "revoked")
    assert relay.program.running and alice.program.running

    # What is left out at the start is listed, with the reason.
    kept = alice.state / "exposures"
    alice.kill()
    kept.write_text(kept.read_text() + "d.demo 80 later=1\nhttp://fixed.demo 9\n")
    alice.start()
    alice.wait_for_control()
    left_out = {one["line"]: one["why"] for one in alice.rpc("node.exposures")["left_out"]}
    assert "'later': did you mean rate" in left_out["d.demo 80 later=1"]
    assert f"stands in the configuration, at {alice.config}:" in left_out["http://fixed.demo 9"]
    assert "    d.demo 80 later=1\n        'later': did you mean rate" in alice.ctl("exposures").stdout

    # What could not be read at the start is not written over.
    alice.kill()
    kept.write_text(kept.read_text() + "\n" * (512 << 10))
    alice.start()
    alice.wait_for_control()
    refused = alice.ctl("expose", "c.demo", "8080", check=False)
    assert refused.returncode == 1 and "could not be read at the start" in refused.stderr
    assert "could not be read at the start" in alice.rpc("node.exposures")["left_out"][0]["why"]
    assert kept.stat().st_size > 512 << 10 and "https://app.demo" in kept.read_text()
