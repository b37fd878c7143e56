"""A home router that forwards a port when asked: Debian's miniupnpd, over UPnP, PCP and NAT-PMP.

    internet ── router, miniupnpd ── inside: alice, bob

Asked by tests/load/port_mapping.c, which is our client and little else.
"""

import json
import re
import signal
import socket
import struct
import time

import pytest

from lab import wait_until
from load import tool
from overlay import Overlay
from traffic import PingPulse

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
enable_natpmp={natpmp}
enable_upnp={upnp}
secure_mode=yes
min_lifetime=120
max_lifetime=86400
uuid=e0f826e2-ef4e-4abf-aa31-25b16c0e0538
allow 1024-65535 {inside} 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


def serve(router, upnp="yes", natpmp="yes"):
    """miniupnpd on a router of the lab."""
    if "miniupnpd" not in router.run(["nft", "list", "ruleset"]).stdout:
        router.nft(CHAINS)
    config = router.folder / "miniupnpd.conf"
    config.write_text(CONFIG.format(upnp=upnp, natpmp=natpmp, inside=router.inside.v4))
    daemon = router.start(["miniupnpd", "-d", "-f", config, "-P", "/run/miniupnpd.pid"])
    # What it opens last.
    daemon.wait_for_log("Listening for NAT-PMP/PCP" if natpmp == "yes" else "HTTP listening on port")
    return daemon


class Home:
    """The router and who is behind it."""

    def __init__(self, lab, build):
        self.build = build
        internet = lab.network("internet", INTERNET)
        self.server = lab.host("server", internet)
        self.router = lab.router("router", internet, nat="port-restricted")
        self.alice = lab.host("alice", self.router.inside)
        self.bob = lab.host("bob", self.router.inside)
        self.daemon = None

    def serve(self, upnp="yes"):
        self.daemon = serve(self.router, upnp=upnp)
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


# ---- the node ------------------------------------------------------------------------------------

HARD = {"nat": "symmetric"}  # nobody reaches another behind one, but by a forwarded port


@pytest.fixture
def overlay(lab, build):
    return Overlay(lab, build, nats={"alice": HARD, "bob": HARD}, internet=(INTERNET,))


def forwarded(node):
    return [e["endpoint"] for e in node.status()["endpoints"] if e["kind"] == "portmap"]


def forwards(router):
    """Does miniupnpd, by what it has told the kernel?"""
    return "dnat" in router.run(["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"]).stdout


# What the router speaks, and what the node finds of it.
PCP_ONLY, NATPMP_ONLY, UPNP_ONLY = {"upnp": "no"}, {"upnp": "no", "pcp": False}, {"natpmp": "no"}
ROUTERS = pytest.mark.parametrize("options, way, speaks", [
    (PCP_ONLY, "PCP", {"pcp": True}),
    (NATPMP_ONLY, "NAT-PMP", {"pcp": False, "natpmp": True}),
    (UPNP_ONLY, "UPnP", {"pcp": False, "natpmp": False, "upnp": True}),
], ids=["pcp", "natpmp", "upnp"])


def serve_as(router, options):
    """As serve(); pcp=False: PCP, which miniupnpd always speaks with NAT-PMP, is not heard."""
    if not options.get("pcp", True):
        router.nft("table inet no_pcp { chain in { type filter hook input priority 0;"
                   "udp dport 5351 @th,64,8 2 drop; }; }")
    return serve(router, **{key: options[key] for key in options if key != "pcp"})


def mapped(node, timeout=20):
    """What the node's status tells of its mapping, once it has one."""
    wait_until(lambda: forwarded(node), timeout, lambda: f"a forwarded port; {node.status()['port_mapping']}")
    return node.status()["port_mapping"]


@ROUTERS
def test_two_nodes_behind_hard_nats_meet_by_a_forwarded_port_which_is_given_back(overlay, options, way, speaks,
                                                                                 measured):
    serve_as(overlay.routers["alice"], options)
    alice, bob = overlay.join().nodes["alice"], overlay.nodes["bob"]

    mapping = mapped(alice)
    assert mapping["way"] == way and mapping.items() >= speaks.items()
    assert mapping["external"].startswith(overlay.routers["alice"].ip + ":")
    assert forwarded(alice) == [mapping["external"]]
    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(5)
        for node, other in ((alice, "bob"), (bob, "alice")):
            measured("direct by a forwarded port", node.wait_for_path(other, "direct", 10))
    said = alice.ctl("netcheck").stdout
    assert f"{mapping['external']}, by {way}" in said and f"{way} yes" in said

    assert forwards(overlay.routers["alice"])
    assert alice.program.stop(3) == 0
    assert not forwards(overlay.routers["alice"])


@pytest.mark.parametrize("options, speaks", [
    ({}, {"pcp": True, "natpmp": True, "upnp": True}),
    (PCP_ONLY, {"pcp": True, "natpmp": True, "upnp": False}),
    (NATPMP_ONLY, {"pcp": False, "natpmp": True, "upnp": False}),
    (UPNP_ONLY, {"pcp": False, "natpmp": False, "upnp": True}),
], ids=["all", "no-upnp", "natpmp", "upnp"])
def test_which_of_the_three_ways_a_router_speaks_is_found_out(lab, build, options, speaks):
    overlay = Overlay(lab, build, ("alice",), nats={"alice": HARD}, internet=(INTERNET,))
    serve_as(overlay.routers["alice"], options)
    alice = overlay.join().nodes["alice"]
    mapped(alice)

    alice.wait_for(lambda status: status["port_mapping"].items() >= speaks.items(), f"finds {speaks}")


@ROUTERS
def test_after_a_crash_the_same_mapping_is_taken_up_by_the_same_way(overlay, options, way, speaks):
    serve_as(overlay.routers["alice"], options)
    alice = overlay.join().nodes["alice"]
    before = mapped(alice)

    alice.kill()
    alice.start()

    after = mapped(alice)
    assert (after["way"], after["external"]) == (way, before["external"])


@pytest.mark.parametrize("options", [PCP_ONLY, NATPMP_ONLY], ids=["pcp", "natpmp"])
def test_a_router_that_begins_anew_forwards_again_soon(overlay, options):
    """It tells everybody (miniupnpd when asked to), and how long it runs: that is less than before."""
    router = overlay.routers["alice"]
    begun = time.monotonic()
    daemon = serve_as(router, options)
    alice = overlay.join().nodes["alice"]
    wait_until(lambda: time.monotonic() > begun + 8, 20, "it has run for a while")
    alice.kill()
    before = mapped(alice.start())["external"]
    daemon.kill()
    router.nft("flush chain inet filter miniupnpd; flush chain inet filter prerouting_miniupnpd;")
    assert not forwards(router)

    serve(router, upnp="no").signal(signal.SIGUSR1)

    wait_until(lambda: forwards(router), 10, "it forwards again")
    assert forwarded(alice) == [before]


@ROUTERS
def test_at_another_address_another_mapping_leads_there(overlay, options, way, speaks):
    router = overlay.routers["alice"]
    serve_as(router, options)
    alice = overlay.join().nodes["alice"]
    mapped(alice)
    moved = alice.host.ip.rpartition(".")[0] + ".77"

    alice.host.move(moved)

    wait_until(lambda: moved in router.run(["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"]).stdout,
               20, "the router forwards to the new address")
    assert mapped(alice)["way"] == way


def forge(host, source, to, port, bytes, n=1):
    """Datagrams to .:port from source:5351, which is another's address."""
    udp = struct.pack("!HHHH", 5351, port, 8 + len(bytes), 0) + bytes
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, socket.inet_aton(source),
                     socket.inet_aton(to))
    with host.socket(kind=socket.SOCK_RAW, proto=socket.IPPROTO_RAW) as s:
        for _ in range(n):
            s.sendto(ip + udp, (to, 0))


def test_forged_announcements_change_nothing_and_make_no_flood(lab, overlay):
    """A neighbour says, in the router's name, that it has begun anew and has another address."""
    router = overlay.routers["alice"]
    serve(router, upnp="no")
    alice = overlay.join().nodes["alice"]
    mallory = lab.host("mallory", router.inside)
    before = mapped(alice)
    router.nft("table inet asked { counter asked { }; chain in { type filter hook input priority 0;"
               "udp dport 5351 counter name asked; }; }")

    address = bytes([0, 128, 0, 0, 0, 0, 0, 0, 66, 66, 66, 66])
    pcp = bytes([2, 0x80]) + bytes(22)
    for announcement in (address, pcp, b"", b"\x02" * 1400):
        forge(mallory, router.inside.gateway, alice.host.ip, 5350, announcement, n=500)

    def asked():
        counter = router.run(["nft", "list", "counter", "inet", "asked", "asked"]).stdout
        return int(re.search(r"packets (\d+)", counter)[1])

    wait_until(asked, 5, "one was heeded")
    after = alice.status()["port_mapping"]
    assert (after["way"], after["external"]) == (before["way"], before["external"])
    assert asked() <= 8


def test_who_wants_no_port_forwarded_asks_nobody(lab, build):
    overlay = Overlay(lab, build, ("alice",), {"alice": "port_mapping = no\n"}, nats={"alice": HARD},
                      internet=(INTERNET,))
    serve(overlay.routers["alice"])
    alice = overlay.join().nodes["alice"]
    alice.wait_for(lambda status: any(e["kind"] == "stun" for e in status["endpoints"]), "knows its mapped endpoint")

    assert not forwarded(alice) and not forwards(overlay.routers["alice"])


def test_a_router_that_comes_to_know_how_is_asked_when_the_network_changes(overlay):
    alice = overlay.join().nodes["alice"]
    alice.program.wait_for_log("forwards no port: neither PCP, NAT-PMP nor UPnP", 15)
    assert not forwarded(alice)

    serve(overlay.routers["alice"])
    alice.host.move(alice.host.ip.rpartition(".")[0] + ".77")

    wait_until(lambda: forwarded(alice), 15, "alice has a forwarded port")
