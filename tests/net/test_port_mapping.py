"""A home router that forwards a port when asked: Debian's miniupnpd, over UPnP, PCP and NAT-PMP.

    internet ── router, miniupnpd ── inside: alice, bob

Asked by tests/load/port_mapping.c, which is our client and little else.
"""

import json
import re

import pytest

from lab import wait_until
from load import tool

# miniupnpd forwards nothing where the outside is one of the networks for documentation.
INTERNET = "44.1.0.0/24"

# What miniupnpd fills, and from where it is reached. The router's own rules let nothing in unasked.
CHAINS = """
table inet filter {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain upnp_in { type nat hook prerouting priority dstnat; policy accept; jump prerouting_miniupnpd; }
    chain upnp_out { type nat hook postrouting priority srcnat; policy accept; jump postrouting_miniupnpd; }
}
add rule inet filter forward jump miniupnpd
"""

CONFIG = """
ext_ifname=eth0
listening_ip=eth1
ipv6_disable=yes
enable_natpmp=yes
enable_upnp={upnp}
secure_mode=yes
min_lifetime=120
max_lifetime=86400
uuid=e0f826e2-ef4e-4abf-aa31-25b16c0e0538
allow 1024-65535 {inside} 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


class Home:
    """The router and who is behind it."""

    def __init__(self, lab, build):
        self.build = build
        internet = lab.network("internet", INTERNET)
        self.server = lab.host("server", internet)
        self.router = lab.router("router", internet, nat="port-restricted")
        self.alice = lab.host("alice", self.router.inside)
        self.bob = lab.host("bob", self.router.inside)
        self.router.nft(CHAINS)
        self.daemon = None

    def serve(self, upnp="yes"):
        config = self.router.folder / "miniupnpd.conf"
        config.write_text(CONFIG.format(upnp=upnp, inside=self.router.inside.v4))
        self.daemon = self.router.start(["miniupnpd", "-d", "-f", config, "-P", "/run/miniupnpd.pid"])
        self.daemon.wait_for_log("Listening for NAT-PMP/PCP")  # the last
        return self

    def ask(self, way, host, port, external, lifetime=600, **named):
        """What the client of this way prints."""
        router = named.get("router", self.router.inside.gateway)
        done = host.run([tool(self.build, "port_mapping"), way, router, f"{host.ip}:{port}", external, lifetime])
        return json.loads(done.stdout)

    def remove(self, way, host, port, external):
        return self.ask("upnp-remove" if way == "upnp" else way, host, port, external, lifetime=0)

    def reaches(self, external, host, port):
        """Does a datagram to the external endpoint, from one never talked to, arrive at the host's port?"""
        ip, outside_port = external.split(":")
        with host.socket() as inside, self.server.socket() as outside:
            inside.bind((host.ip, port))
            inside.settimeout(0.5)
            outside.sendto(b"unasked", (ip, int(outside_port)))
            try:
                return inside.recv(100) == b"unasked"
            except TimeoutError:
                return False


@pytest.fixture
def home(lab, build):
    return Home(lab, build)


WAYS = ["upnp", "pcp", "natpmp"]


@pytest.mark.parametrize("way", WAYS)
def test_a_port_is_forwarded_and_forgotten(home, way):
    home.serve()
    external = f"{home.router.ip}:40001"
    assert not home.reaches(external, home.alice, 40000)

    assert home.ask(way, home.alice, 40000, 40001) == {"external": external, "lifetime_s": 600}
    assert home.reaches(external, home.alice, 40000)

    assert "error" not in home.remove(way, home.alice, 40000, 40001)
    assert not home.reaches(external, home.alice, 40000)


@pytest.mark.parametrize("way", WAYS)
def test_asking_again_renews_the_same_port(home, way):
    home.serve()
    first = home.ask(way, home.alice, 40000, 40001)

    assert home.ask(way, home.alice, 40000, 40001) == first
    assert home.reaches(first["external"], home.alice, 40000)


@pytest.mark.parametrize("way", WAYS)
def test_a_port_that_another_machine_has_is_another_one(home, way):
    home.serve()
    alices = home.ask(way, home.alice, 40000, 40001)
    bobs = home.ask(way, home.bob, 50000, 40001)

    assert bobs["external"] != alices["external"]
    assert home.reaches(alices["external"], home.alice, 40000)
    assert home.reaches(bobs["external"], home.bob, 50000)


def test_over_upnp_the_mapping_of_another_machine_stays(home):
    home.serve()
    alices = home.ask("upnp", home.alice, 40000, 40001)

    assert home.remove("upnp", home.bob, 40000, 40001)["error"] < 0
    assert home.reaches(alices["external"], home.alice, 40000)


def test_over_upnp_a_refusal_is_told_with_its_code(home):
    home.serve()

    said = home.ask("upnp", home.alice, 40000, 80)

    assert said["error"] < 0
    assert re.search(r"UPnP error \d+, \w", said["message"])


def test_over_upnp_what_is_not_there_is_removed(home):
    home.serve()
    assert "error" not in home.remove("upnp", home.alice, 40000, 40001)


def test_over_upnp_a_router_that_was_started_anew_forwards_again(home):
    home.serve()
    first = home.ask("upnp", home.alice, 40000, 40001)
    home.daemon.stop()
    home.router.nft("flush chain inet filter miniupnpd; flush chain inet filter prerouting_miniupnpd;")
    assert not home.reaches(first["external"], home.alice, 40000)
    home.serve()

    assert home.ask("upnp", home.alice, 40000, 40001) == first
    assert home.reaches(first["external"], home.alice, 40000)


def test_a_router_without_upnp_does_not_answer(home):
    home.serve(upnp="no")

    said = home.ask("upnp", home.alice, 40000, 40001)

    assert "does not answer" in said["message"]


def test_a_stranger_with_upnp_in_the_same_network_is_not_asked(home):
    """miniupnpd is the router's; who is taken for the router is bob."""
    home.serve()

    said = home.ask("upnp", home.alice, 40000, 40001, router=home.bob.ip)

    assert "does not answer" in said["message"]
