"""What a user notices when relays fail: a gap, printed for each fault, and no more than that.

    control    north     south            (relays; north is home, since an admin says that south costs)
       |         |         |
    ---+---------+---------+--- internet ---+--- office [port-restricted] --- bob
                                            |
                                            +--- cafe [symmetric] --- carol

bob and carol have no direct path, nor does a search find one: their UDP goes to relays alone. 100 small packets a
second go from carol to bob and back, by relay. What counts is the longest time without an answer from just before the
fault on.
"""

import re
import signal
import time

import pytest

from lab import TIMEOUT_SCALE, wait_until
from overlay import Control, Node, Overlay
from traffic import Echo, Pulse, Stream

pytestmark = pytest.mark.alone

GAP = 1.0  # seconds, at most
NOTHING_DIRECT = ("table inet relayed { chain out { type filter hook output priority 0;\n"
                  'oifname "eth0" meta l4proto udp udp dport != 3478 drop\n}\n}')


class World:
    """The overlay above, with a stream between carol and bob."""

    def __init__(self, lab, build, n_relays=2, block_udp=(), relay_rmem=None):
        self.lab = lab
        self.overlay = overlay = Overlay(lab, build, ())
        if relay_rmem:
            overlay.relay.host.sysctl("net.ipv4.tcp_rmem", relay_rmem)
        self.relays = [overlay.relay]
        overlay.relay.join(overlay.control.link())
        self.north = self.relays[0]
        self.nodes = [overlay.add(name) for name in ("bob", "carol")]
        self.bob, self.carol = self.nodes
        for node in self.nodes:
            node.host.nft(NOTHING_DIRECT)
        for name in block_udp:
            overlay.routers[name].block_udp()
        for node in self.nodes:
            node.join(overlay.control.link())
        for node, other in ((self.bob, "carol"), (self.carol, "bob")):
            node.wait_for_relay("relay")
            node.wait_for_peer(other)
        if n_relays == 2:
            self.add_south(build)
        self.echo = Echo(self.bob.host)
        self.pulse = Pulse(self.carol.host, self.bob.ip)
        self.pulse.first_answer()
        self.pulse.keeps_going(100)

    def add_south(self, build):
        """After the others have chosen their home."""
        south = Node(build, self.lab.host("south", self.overlay.internet), public=True).start()
        south.join(self.overlay.control.link())
        self.overlay.control.admin("relay", "add", "south", "--cost", "50")
        self.relays.append(south)
        for node in self.nodes:
            node.wait_for(lambda s: len(s["relays"]) == 2, "knows both relays")

    @property
    def south(self):
        return self.relays[1]

    def close(self):
        self.pulse.close()
        self.echo.close()

    def gap(self, fault, answers=200, timeout=20.0):
        """Seconds of the longest gap from the fault on; the stream must run well again."""
        begin = time.monotonic()
        fault()
        self.pulse.gap_after(time.monotonic(), timeout)
        self.pulse.keeps_going(answers, timeout)
        return self.pulse.longest_gap(begin - 0.05)

    def without_control(self):
        """Once each has kept who is a member: what was not written yet is lost with control and a restart."""
        names = {node.name for node in self.nodes}
        for node in (*self.relays, *self.nodes):
            wait_until(lambda: names <= node.cached_peers() | {node.name}, 60, "the map is kept")
        self.overlay.control.kill()
        for node in self.nodes:
            node.wait_for(lambda s: not s["control"]["connected"], "notices that control is gone")


def transports(node):
    return {r["name"]: r["transport"] for r in node.status()["relays"]}


def wait_for_transport(node, relay, transport, timeout=20.0):
    wait_until(lambda: transports(node).get(relay) == transport, timeout,
               lambda: f"{node.name}: {relay} over {transport}; {node.status()['relays']}")


@pytest.fixture
def world(lab, build, request):
    options = getattr(request, "param", {})
    world = World(lab, build, **options)
    yield world
    world.close()


one_relay = pytest.mark.parametrize("world", [{"n_relays": 1}], indirect=True, ids=["one relay"])
control_or_not = pytest.mark.parametrize("control", [True, False], ids=["", "control away"])


# ---- by which way ----------------------------------------------------------------------------------

@one_relay
def test_udp_is_used_where_it_works_and_tls_is_not_kept(world):
    for node in world.nodes:
        wait_for_transport(node, "relay", "udp")
        relay = node.status()["relays"][0]
        assert relay["udp_latency_us"] and relay["tls_latency_us"] is None
    assert {c["transport"] for c in world.north.rpc("relay.status")["clients"]
            if c["name"] in ("bob", "carol")} == {"udp"}


@pytest.mark.parametrize("world", [{"n_relays": 1, "block_udp": ("bob", "carol")}], indirect=True,
                         ids=["one relay"])
def test_tls_is_used_where_there_is_no_udp(world):
    for node in world.nodes:
        assert transports(node) == {"relay": "tls"}


@pytest.mark.parametrize("world", [{"n_relays": 1, "block_udp": ("bob",)},
                                   {"n_relays": 1, "block_udp": ("carol",)}], indirect=True,
                         ids=["the receiver", "the sender"])
def test_one_over_udp_and_one_over_tls_reach_each_other(world, measured):
    measured("round trip, one over UDP, one over TLS", world.pulse.round_trip())
    assert sorted(transports(node)["relay"] for node in world.nodes) == ["tls", "udp"]


def test_a_relay_that_has_only_ipv6_is_used_over_udp(lab, build):
    internet = lab.network("internet", v6="2001:db8::/64")
    control = Control(build, lab.host("control", internet)).start()
    relay = Node(build, lab.host("relay", internet), public=True)
    relay.config.write_text(f"[node]\nname = relay\n[public]\naddress = {relay.host.ip6}\n")
    relay.start().join(control.link())
    nodes = [Node(build, lab.host(name, internet)).start() for name in ("alice", "bob")]
    for node in nodes:
        node.host.nft(NOTHING_DIRECT)
        node.join(control.link())
    for node, other in (nodes, reversed(nodes)):
        node.wait_for_relay("relay")
        node.wait_for_peer(other.name)
    with Echo(nodes[1].host), Pulse(nodes[0].host, nodes[1].ip) as pulse:
        pulse.first_answer()
        pulse.keeps_going(100)
        assert pulse.lost() == 0
    assert [transports(node)["relay"] for node in nodes] == ["udp", "udp"]


# ---- relays that fail ------------------------------------------------------------------------------

@control_or_not
def test_a_relay_is_killed(world, measured, control):
    if not control:
        world.without_control()
    measured("gap: relay killed" + ("" if control else ", control away"), world.gap(world.north.kill), GAP)
    for node in world.nodes:
        node.wait_for_relay("south")


@control_or_not
def test_a_relay_is_cut_off_without_a_word(world, measured, control):
    if not control:
        world.without_control()
    measured("gap: relay cut off" + ("" if control else ", control away"), world.gap(world.north.host.unplug),
             GAP)


@control_or_not
def test_a_relay_is_stopped(world, measured, control):
    if not control:
        world.without_control()
    measured("gap: relay stopped by SIGTERM" + ("" if control else ", control away"),
             world.gap(lambda: world.north.program.process.send_signal(signal.SIGTERM)), GAP)


@one_relay
@control_or_not
def test_a_relay_restarts_in_place(world, measured, control):
    """The gap is counted from when it is there again."""
    if not control:
        world.without_control()
    world.north.kill()
    world.north.start()
    back = time.monotonic()
    measured("gap: relay restarted in place, after it is back" + ("" if control else ", control away"),
             world.pulse.gap_after(back), GAP)
    world.pulse.keeps_going(100)


@control_or_not
def test_a_relay_is_drained(world, measured, control):
    if not control:
        world.without_control()
    measured("gap: relay drained" + ("" if control else ", control away"),
             world.gap(lambda: world.north.ctl("relay", "drain")), GAP)
    for node in world.nodes:
        node.wait_for_relay("south")


@control_or_not
def test_a_relay_gets_another_address(world, measured, control):
    """Without control nobody can be told where: its clients go to the other."""
    north, ip = world.north, "198.51.100.77"
    if not control:
        world.without_control()

    def move():
        north.kill()
        north.host.move(ip)
        north.config.write_text(f"[node]\nname = {north.name}\n[public]\naddress = {ip}\n")
        north.start()
    measured("gap: relay moved to another address" + ("" if control else ", control away"), world.gap(move), GAP)


# ---- clients and what is between -------------------------------------------------------------------

@control_or_not
def test_the_clients_own_address_changes(world, measured, control):
    if not control:
        world.without_control()
    wait_for_transport(world.carol, "relay", "udp")
    measured("gap: the client's own address changed" + ("" if control else ", control away"),
             world.gap(lambda: world.carol.host.move("10.2.0.77")), GAP)


@control_or_not
def test_half_of_udp_is_lost(world, measured, control):
    if not control:
        world.without_control()

    def lose():
        world.overlay.routers["carol"].nft(
            "table inet half { chain forward { type filter hook forward priority -10;\n"
            "meta l4proto udp numgen random mod 100 < 50 drop\n}\n}")
    measured("gap: half of UDP lost" + ("" if control else ", control away"), world.gap(lose), GAP)
    wait_for_transport(world.carol, "relay", "tls", 30)
    begin = time.monotonic()
    world.pulse.keeps_going(300)
    time_of_300 = time.monotonic() - begin
    assert time_of_300 < 4.5 * TIMEOUT_SCALE, "over TLS nothing is lost"


def changes_of_way(node):
    return re.findall(r"relay \S+ is used over (\S+)$", node.program.output(), re.MULTILINE)


@pytest.mark.slow
@one_relay
def test_where_a_quarter_of_udp_is_lost_and_tls_loses_nothing_tls_is_taken_and_kept(world, measured):
    """As where somebody throttles UDP. How seldom it changes over hours is counted in test_relay_choice."""
    carol = world.carol
    wait_for_transport(carol, "relay", "udp")
    begin = time.monotonic()
    world.overlay.routers["carol"].nft(
        "table inet quarter { chain forward { type filter hook forward priority -10;\n"
        "meta l4proto udp numgen random mod 100 < 25 drop\n}\n}")
    wait_for_transport(carol, "relay", "tls", 40)
    measured("a quarter of UDP lost: TLS is taken after", time.monotonic() - begin)
    time.sleep(20)  # some chance to be wrong
    assert len(changes_of_way(carol)) <= 3, changes_of_way(carol)
    wait_for_transport(carol, "relay", "tls", 30)
    since = time.monotonic()
    world.pulse.keeps_going(300, 20)
    assert transports(carol) == {"relay": "tls"} and world.pulse.lost(since) <= 3, "over TLS nothing is lost"


@control_or_not
def test_all_udp_is_blocked(world, measured, control):
    if not control:
        world.without_control()
    measured("gap: all UDP blocked" + ("" if control else ", control away"),
             world.gap(world.overlay.routers["carol"].block_udp), GAP)
    wait_for_transport(world.carol, world.carol.home(), "tls")


@control_or_not
def test_all_udp_of_the_receiver_is_blocked(world, measured, control):
    if not control:
        world.without_control()
    measured("gap: all UDP of the receiver blocked" + ("" if control else ", control away"),
             world.gap(world.overlay.routers["bob"].block_udp), GAP)
    wait_for_transport(world.bob, world.bob.home(), "tls")


@control_or_not
@pytest.mark.parametrize("whose", ["carol", "bob"], ids=["the sender's", "the receiver's"])
def test_all_udp_is_blocked_while_one_only_sends_and_one_only_receives(world, measured, control, whose):
    world.pulse.close()
    if not control:
        world.without_control()
    with Stream(world.carol.host, world.bob.host, world.bob.ip) as stream:
        stream.keeps_going(300)
        begin = time.monotonic()
        world.overlay.routers[whose].block_udp()
        wait_until(lambda: stream.longest_gap(begin - 0.05) > 0.1, 20, "the stream stops and flows again")
        stream.keeps_going(200)
        measured(f"gap: all UDP of {whose} blocked, carol only sends, bob only receives" +
                 ("" if control else ", control away"), stream.longest_gap(begin - 0.05), GAP)


@pytest.mark.parametrize("idle_s", [4, 13], ids=["4 s", "13 s"])
def test_all_udp_was_blocked_while_nobody_talked(world, measured, idle_s):
    """bob cannot notice by himself; he is woken by who sends to him and hears nothing."""
    world.pulse.close()
    for node, other in ((world.bob, "carol"), (world.carol, "bob")):
        wait_until(lambda node=node, other=other: node.peer(other)["packet_ms"] > idle_s * 1000, 60,
                   f"nobody talks for {idle_s} s")
    world.overlay.routers["bob"].block_udp()
    world.pulse = Pulse(world.carol.host, world.bob.ip)
    measured(f"first answer after all UDP was blocked while nobody talked for {idle_s} s", world.pulse.first_answer(), GAP)


def cut_off_from_north(world):
    north = world.north.host.ip
    world.overlay.routers["bob"].nft(
        "table inet cut { chain forward { type filter hook forward priority -10;\n"
        f"ip daddr {north} drop\nip saddr {north} drop\n}}\n}}")


@control_or_not
def test_the_receiver_loses_only_its_way_to_its_home(world, measured, control):
    """Both relays run on, and carol reaches both. She has to look for bob at the other."""
    if not control:
        world.without_control()
    measured("gap: the receiver's way to its home is cut" + ("" if control else ", control away"),
             world.gap(lambda: cut_off_from_north(world), timeout=60), GAP)


@pytest.mark.parametrize("world", [{"block_udp": ("carol",)}], indirect=True, ids=["the sender has TLS only"])
@control_or_not
def test_who_sends_by_tls_alone_finds_a_receiver_that_lost_its_home(world, measured, control):
    """Over TLS nobody says that a peer is there: it has to be tried. 0.45 s until that is in doubt, then 0.1 s."""
    if not control:
        world.without_control()
    measured("gap: the receiver's way to its home is cut, the sender has TLS only" + ("" if control else ", control away"),
             world.gap(lambda: cut_off_from_north(world), timeout=60), 0.8)


@one_relay
def test_udp_comes_back_and_nothing_is_lost_when_tls_is_closed(world):
    carol, router = world.carol, world.overlay.routers["carol"]
    router.block_udp()
    wait_for_transport(carol, "relay", "tls")
    world.pulse.keeps_going(100)
    back = time.monotonic()
    router.unblock_udp()
    wait_for_transport(carol, "relay", "udp")
    carol.wait_for(lambda s: s["relays"][0]["tls_latency_us"] is None, "TLS is closed", 30)
    world.pulse.keeps_going(100)
    assert world.pulse.lost(since=back) == 0


no_udp = pytest.mark.parametrize("world", [{"block_udp": ("bob", "carol")}], indirect=True, ids=["no UDP"])


@no_udp
@control_or_not
def test_a_tls_connection_stalls(world, measured, control):
    """Nothing is read any more, but the kernel of the relay acknowledges: its window is far from closed."""
    if not control:
        world.without_control()
    world.pulse.keeps_going(100)
    stop = world.north.program.process
    try:
        measured("gap: TLS connection stalled" + ("" if control else ", control away"),
                 world.gap(lambda: stop.send_signal(signal.SIGSTOP)), GAP)
    finally:
        stop.send_signal(signal.SIGCONT)


def window(node, relay):
    """Bytes that the relay's kernel takes more from this node over TLS; ss leaves the number out when it is 0."""
    line = node.host.run(["ss", "-tinOH", "state", "established", "dst", f"{relay.host.ip}:443"]).stdout
    assert "cwnd:" in line, "there is one connection, and it is known"
    found = re.search(r"snd_wnd:(\d+)", line)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("world", [{"block_udp": ("bob", "carol"), "relay_rmem": "4096 16384 65536"}], indirect=True,
                         ids=["no UDP"])
@control_or_not
def test_the_window_of_a_tls_connection_closes(world, measured, control):
    """The same under bulk traffic: the relay's kernel has room for nothing more, and says so."""
    if not control:
        world.without_control()
    stop = world.north.program.process

    def stall():
        stop.send_signal(signal.SIGSTOP)
        wait_until(lambda: window(world.carol, world.north) == 0, 10, "the window is closed", 0.02)
    with Stream(world.carol.host, world.bob.host, world.bob.ip, interval=0.001, size=1200) as stream:
        stream.keeps_going(500)
        wait_until(lambda: window(world.carol, world.north) > 0, 10, "the window is open")
        try:
            measured("gap: window of TLS connection closed" + ("" if control else ", control away"),
                     world.gap(stall), GAP)
        finally:
            stop.send_signal(signal.SIGCONT)


@control_or_not
def test_who_only_receives_loses_only_its_way_to_its_home(world, measured, control):
    """Nothing that it says could be missed: it is asked whether it is there."""
    world.pulse.close()
    if not control:
        world.without_control()
    with Stream(world.carol.host, world.bob.host, world.bob.ip) as stream:
        stream.keeps_going(500)
        begin = time.monotonic()
        cut_off_from_north(world)
        wait_until(lambda: stream.longest_gap(begin - 0.05) > 0.1, 20, "the stream stops and flows again")
        stream.keeps_going(200, 40)
        measured("gap: the way to its home of one that only receives is cut" + ("" if control else ", control away"),
                 stream.longest_gap(begin - 0.05), GAP)
