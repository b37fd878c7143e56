"""A node whose WireGuard is another program's: wireguard = uapi, over any daemon with a UAPI socket.

alice has it, bob has the in-process one; the topology is overlay.Overlay's. To each other they must be
as any two nodes.
"""

import socket
import time

import pytest

from lab import wait_until
from overlay import Node, Overlay
from traffic import Echo, Pulse, Transfer

AFTER_UDP_CUT = 1.0
INTERFACE = "p2p0"
SOCKET = f"/var/run/wireguard/{INTERFACE}.sock"
UAPI = "wireguard = uapi\n"


class Daemon:
    """Serves p2p0 on a host, as its user would have started it."""

    def __init__(self, build, host, name):
        program = build.program("p2pwg") if name == "p2pwg" else f"/usr/bin/{name}"
        self.host = host
        host.run(["rm", "-f", SOCKET])  # of one that was killed: wg removes it too, under the hands of its successor
        self.program = host.start([program, "-f", INTERFACE], name=name)
        wait_until(self.listens, 10, f"{name} listens")
        wait_until(self.answers, 10, f"{name} serves {INTERFACE}")

    def wg(self, what):
        """Lines of `wg show p2p0 WHAT`, split."""
        done = self.host.run(["wg", "show", INTERFACE, what], check=False)
        return [line.split() for line in done.stdout.splitlines()]

    def listens(self):
        """Asked without wg, which removes the socket of a daemon that is not yet listening."""
        connect = f"import socket; socket.socket(socket.AF_UNIX).connect('{SOCKET}')"
        return self.host.run(["/usr/bin/python3", "-c", connect], check=False).returncode == 0

    def answers(self):
        return self.host.run(["wg", "show", INTERFACE], check=False).returncode == 0


@pytest.fixture(params=["wireguard-go", "p2pwg"])
def daemon_name(request):
    return request.param


@pytest.fixture
def overlay(lab, build, daemon_name):
    """alice over the daemon, bob in-process; joined and idle."""
    overlay = Overlay(lab, build, config={"alice": UAPI})
    overlay.daemon = Daemon(build, overlay.nodes["alice"].host, daemon_name)
    return overlay.join()


def block_direct(overlay):
    """No UDP leaves either site: only relays are reached, over TLS. The sites notice by themselves."""
    for router in overlay.routers.values():
        router.block_udp()


def test_the_first_answers_come_by_relay_then_directly_and_none_is_lost(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        alice.wait_for_path("bob", "direct")
        bob.wait_for_path("alice", "direct")
        pulse.keeps_going(100)
        assert pulse.lost() == 0

    for node, other in ((alice, "bob"), (bob, "alice")):
        peer = node.peer(other)
        assert peer["rx_bytes"] != "0" and peer["tx_bytes"] != "0"
        assert peer["handshake_ms"] is not None and peer["packet_ms"] < 5000


def test_both_families_and_both_directions(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(alice.host), Echo(bob.host):
        for source, target in ((bob, alice.ip), (alice, bob.ip6), (bob, alice.ip6), (alice, bob.ip)):
            with Pulse(source.host, target) as pulse:
                pulse.first_answer()


@pytest.mark.parametrize("path", ["relay", "direct"])
def test_a_file_arrives_whole(overlay, tmp_path, path):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    file = tmp_path / "file"
    with open(file, "wb") as f, open("/dev/urandom", "rb") as random:
        f.write(random.read(4 << 20))
    if path == "relay":
        block_direct(overlay)
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        alice.wait_for_path("bob", path)

    assert Transfer(alice.host, bob.host, bob.ip, file).same
    assert Transfer(bob.host, alice.host, alice.ip, file).same
    alice.wait_for_peer("bob", lambda peer: peer["path"] == path and int(peer["rx_bytes"]) > 4 << 20)


def test_traffic_flows_again_after_udp_is_cut(overlay, measured, daemon_name):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        alice.wait_for_path("bob", "direct")
        bob.wait_for_path("alice", "direct")
        pulse.keeps_going(50)
        overlay.routers["bob"].block_udp()
        measured(f"gap after UDP was cut, {daemon_name}", pulse.gap_after(time.monotonic()), AFTER_UDP_CUT)
        alice.wait_for_path("bob", "relay")
        overlay.routers["bob"].unblock_udp()
        alice.wait_for_path("bob", "direct", 20)
        pulse.keeps_going(20)


def test_without_nat_packets_go_straight_between_the_daemons_and_back_by_the_nodes_when_they_cannot(lab, build):
    """Two public hosts: neither node sees the packets of its daemon. A firewall before one daemon's port
    is got round within three seconds."""
    overlay = Overlay(lab, build, ())
    daemons = {}
    for name, program in (("erin", "p2pwg"), ("frank", "wireguard-go")):
        node = overlay.nodes[name] = Node(build, lab.host(name, overlay.internet), config=UAPI).start()
        daemons[name] = Daemon(build, node.host, program)
    overlay.join()
    erin, frank = overlay.nodes["erin"], overlay.nodes["frank"]

    def endpoint(name, of):
        key = of.status()["self"]["node_key"]
        return dict(daemons[name].wg("endpoints")).get(key, "(none)")

    def is_straight():
        return endpoint("erin", frank).startswith(frank.host.ip) and endpoint("frank", erin).startswith(erin.host.ip)

    with Echo(frank.host), Pulse(erin.host, frank.ip) as pulse:
        wait_until(is_straight, 20, "both daemons send straight to each other")
        pulse.keeps_going(200)
        assert is_straight()
        port = daemons["frank"].wg("listen-port")[0][0]
        frank.host.nft(f"add table inet wall; add chain inet wall in {{ type filter hook input priority 0; }}; "
                       f"add rule inet wall in iifname != lo udp dport {port} drop")
        cut = time.monotonic()
        assert pulse.gap_after(cut + 0.05, 20) < 3.5
        pulse.keeps_going(100)
        assert not is_straight()
        assert erin.peer("frank")["path"] == frank.peer("erin")["path"] == "direct"


def test_status_says_whose_wireguard_it_is(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    assert alice.status()["wireguard"] == "uapi"
    assert bob.status()["wireguard"] == "in-process"
    assert "WireGuard uapi" in alice.ctl("status").stdout


def test_a_restarted_node_takes_the_daemon_over_again(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        alice.wait_for_path("bob", "direct")

    for end in (alice.program.stop, alice.kill):
        end()
        alice.start()
        with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
            pulse.first_answer()
        with Echo(alice.host), Pulse(bob.host, alice.ip) as pulse:
            pulse.first_answer()


def test_a_node_that_ends_leaves_the_daemon_without_key_and_peers(overlay):
    alice = overlay.nodes["alice"]
    wait_until(lambda: len(overlay.daemon.wg("peers")) == 2, 5, "alice's peers are the daemon's")

    alice.program.stop()

    assert overlay.daemon.program.running
    assert overlay.daemon.wg("peers") == []
    assert overlay.daemon.wg("private-key") in ([["(none)"]], [])
    addresses = alice.host.run(["ip", "-o", "-4", "address", "show", "dev", INTERFACE]).stdout
    assert addresses == ""


def test_a_removed_peer_is_removed_from_the_daemon(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    key = bob.status()["self"]["node_key"]
    wait_until(lambda: [key] in overlay.daemon.wg("peers"), 5, "bob is the daemon's peer")
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()

        overlay.control.admin("node", "remove", "bob")

        wait_until(lambda: [key] not in overlay.daemon.wg("peers"), 5, "bob is not the daemon's peer any more")
        answered = len(pulse.answered)
        pulse_end = time.monotonic() + 0.5
        wait_until(lambda: time.monotonic() > pulse_end, 2, "half a second more")
        assert len(pulse.answered) <= answered + 1


def test_no_daemon_is_said_with_its_socket_and_the_remedy_and_one_that_comes_is_found(lab, build):
    overlay = Overlay(lab, build, config={"alice": UAPI})
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    for name in ("relay", "bob"):
        overlay.nodes[name].join(overlay.control.link())

    refused = alice.ctl("join", "-", input=overlay.control.link() + "\n", check=False)

    text = refused.stdout + refused.stderr + alice.program.output()
    assert SOCKET in text
    assert "wireguard-go p2p0" in text and "wireguard = in-process" in text
    Daemon(build, alice.host, "wireguard-go")
    alice.kill()
    alice.start()
    alice.wait_for_peer("bob")
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()


def test_a_daemon_that_ends_and_comes_back_is_used_again(overlay, build, daemon_name):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()

    overlay.daemon.program.kill()
    alice.program.wait_for_log("interface p2p0 was deleted", 10)
    Daemon(build, alice.host, daemon_name)

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer(60)


def test_an_initiation_from_an_unknown_address_is_counted(overlay):
    alice, relay = overlay.nodes["alice"], overlay.nodes["relay"]
    port = int(alice.status()["endpoints"][0]["endpoint"].rpartition(":")[2])

    stranger = overlay.lab.host("stranger", overlay.routers["alice"].inside)
    with stranger.socket(socket.AF_INET) as s:
        s.sendto(b"\x01\0\0\0" + bytes(144), (alice.host.ip, port))

    wait_until(lambda: alice.status()["drops"]["wireguard initiation of unknown address"] == "1", 5, "it is counted")
    assert relay.program.running
