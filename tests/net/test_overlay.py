"""The overlay as a whole: members behind NATs reach each other, whatever is cut, killed or wrong.

Unless a test draws another, its topology is the one in overlay.Overlay:

        control   relay (public node)
           |        |
        ---+--------+------- internet -------+---------------------+------------------+
                                             |                     |                  |
                              home [port-restricted]  office [port-restricted]  cafe [symmetric]
                                             |                     |                  |
                                           alice                  bob               carol

The bounds are the promises of the README; what was measured is printed at the end of the run.
"""

import random
import socket
import ssl
import time

import pytest

from lab import wait_until
from overlay import Node, Overlay
from traffic import Echo, Pulse, Transfer

FIRST_ANSWER = 0.3   # seconds, by the relay, both nodes being up
DIRECT = 2.0         # from the first traffic, where the NATs allow it
AFTER_UDP_CUT = 1.0  # until traffic flows again


@pytest.fixture
def overlay(lab, build):
    """alice and bob, joined and idle."""
    return Overlay(lab, build).join()


# ---- what people see first ---------------------------------------------------------------------

def test_members_join_by_link_and_see_each_other(overlay):
    alice, bob, relay = (overlay.nodes[n] for n in ("alice", "bob", "relay"))

    assert overlay.control.names() == {"alice", "bob", "relay"}
    for node in (alice, bob, relay):
        assert set(node.peers()) == {"alice", "bob", "relay"} - {node.name}
    ids = [node.identity() for node in (alice, bob, relay)]
    for field in ("id", "ip4", "ip6", "node_key"):
        assert len({i[field] for i in ids}) == 3, field
    assert alice.peer("bob")["ip4"] == bob.ip
    text = alice.ctl("status").stdout
    assert "bob" in text and bob.ip in text


def test_p2pctl_ping_says_which_path_answered(overlay):
    alice = overlay.nodes["alice"]

    done = alice.ctl("ping", "bob")

    assert "relay" in done.stdout or "direct" in done.stdout
    assert alice.ctl("ping", "nobody", check=False).returncode != 0


def test_p2pctl_status_watches(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    watch = alice.host.start([overlay.build.program("p2pctl"), "--socket", alice.socket_path, "status",
                              "--watch"], name="watch")
    wait_until(lambda: "inactive" in watch.output(), 10, "the first picture")

    with Echo(bob.host), Pulse(alice.host, bob.ip):
        wait_until(lambda: "established" in watch.output(), 10, "a later picture, with the path that is there now")

    assert watch.running


def test_first_answer_by_relay_then_direct(overlay, measured):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        first = pulse.first_answer()
        alice.wait_for_path("bob", "direct")
        bob.wait_for_path("alice", "direct")
        direct = time.monotonic() - pulse.begin
        pulse.keeps_going(20)
        lost = pulse.lost()

    measured("first answer", first, FIRST_ANSWER)
    measured("direct", direct, DIRECT)
    assert lost == 0, "the change of path loses nothing"


def test_both_families_and_both_directions(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(alice.host), Echo(bob.host):
        for source, target in ((alice, bob.ip6), (bob, alice.ip), (bob, alice.ip6), (alice, bob.ip)):
            with Pulse(source.host, target) as pulse:
                pulse.first_answer()


def test_a_symmetric_nat_against_a_port_restricted_one_stays_with_the_relay(lab, build, measured):
    overlay = Overlay(lab, build, ("bob", "carol")).join()
    bob, carol = overlay.nodes["bob"], overlay.nodes["carol"]

    with Echo(bob.host), Pulse(carol.host, bob.ip) as pulse:
        measured("first answer, symmetric", pulse.first_answer(), FIRST_ANSWER)
        pulse.keeps_going(300)
        lost = pulse.lost()
        assert carol.peer("bob")["path"] == bob.peer("carol")["path"] == "relay"

    assert lost == 0


def test_a_file_arrives_whole(overlay, measured, tmp_path):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    file = tmp_path / "file"
    with open(file, "wb") as f, open("/dev/urandom", "rb") as random:
        f.write(random.read(8 << 20))
    with Echo(bob.host), Pulse(alice.host, bob.ip):
        alice.wait_for_path("bob", "direct")

    transfer = Transfer(alice.host, bob.host, bob.ip, file)

    assert transfer.same
    measured("8 MiB by TCP, sanitized build, Mbit/s", transfer.mbit_per_s)


# ---- what breaks on the way --------------------------------------------------------------------

def test_traffic_flows_again_after_udp_is_cut(overlay, measured):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        alice.wait_for_path("bob", "direct")
        bob.wait_for_path("alice", "direct")
        pulse.keeps_going(50)
        overlay.routers["bob"].block_udp()
        measured("gap after UDP was cut", pulse.gap_after(time.monotonic()), AFTER_UDP_CUT)
        alice.wait_for_path("bob", "relay")
        back = time.monotonic()
        pulse.keeps_going(200)
        measured("longest gap on the relay", pulse.longest_gap(since=back), AFTER_UDP_CUT)

        overlay.routers["bob"].unblock_udp()
        measured("direct again after UDP came back", alice.wait_for_path("bob", "direct", 60))


def test_traffic_does_not_notice_that_control_is_killed(overlay, measured):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        alice.wait_for_path("bob", "direct")
        pulse.keeps_going(50)
        begin = time.monotonic()
        overlay.control.kill()
        alice.wait_for(lambda s: not s["control"]["connected"], "notices that control is gone")
        pulse.keeps_going(100)
        overlay.control.start()
        for node in (alice, bob):
            node.wait_for_control()
        measured("nodes back at control after kill and restart", time.monotonic() - begin)
        pulse.keeps_going(50)
        lost, gap = pulse.lost(since=begin), pulse.longest_gap(since=begin)

    measured("longest gap while control was away", gap)
    assert lost == 0
    assert overlay.control.names() == {"alice", "bob", "relay"}


def test_a_new_member_joins_after_control_was_killed(overlay):
    overlay.control.kill()
    overlay.control.start()

    carol = overlay.add("carol")
    carol.join(overlay.control.link())

    overlay.wait_until_known(30)
    alice = overlay.nodes["alice"]
    with Echo(carol.host), Pulse(alice.host, carol.ip) as pulse:
        pulse.first_answer()


def test_a_killed_node_comes_back_as_it_was(overlay, measured):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        alice.wait_for_path("bob", "direct")
        before = bob.identity()
        bob.kill()
        bob.start()
        restarted = time.monotonic()
        assert bob.identity() == before
        measured("traffic after kill -9 and restart of a node", pulse.gap_after(restarted, 30))
        alice.wait_for_path("bob", "direct", 30)

    assert overlay.control.names() == {"alice", "bob", "relay"}


def test_a_killed_relay_comes_back_and_carries_again(lab, build, measured):
    overlay = Overlay(lab, build, ("bob", "carol")).join()
    bob, carol = overlay.nodes["bob"], overlay.nodes["carol"]

    with Echo(bob.host), Pulse(carol.host, bob.ip) as pulse:
        pulse.first_answer()
        before = overlay.relay.identity()
        overlay.relay.kill()
        overlay.relay.start()
        measured("traffic after kill -9 and restart of the relay", pulse.gap_after(time.monotonic(), 30))
        assert overlay.relay.identity() == before


def test_nodes_start_from_the_cached_map_when_control_is_away(overlay, measured):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    before = {node.name: node.identity() for node in (alice, bob)}
    for node in (alice, bob):
        wait_until(lambda: node.cached_peers() == node.peers().keys(), what="the map is on disk")
    overlay.control.kill()
    for node in (alice, bob):
        node.kill()
    for node in (alice, bob):
        node.start()
    begin = time.monotonic()

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer(30)
    measured("first answer from the cached map, control away", time.monotonic() - begin)
    assert {node.name: node.identity() for node in (alice, bob)} == before


def test_a_node_that_moves_to_another_address_is_found_again(overlay, measured):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        alice.wait_for_path("bob", "direct")
        bob.host.move(str(overlay.routers["bob"].inside.v4[99]))
        measured("gap after a change of address", pulse.gap_after(time.monotonic(), 30))


def test_traffic_survives_loss(overlay, measured):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    overlay.internet.loss(10)

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer(10)
        alice.wait_for_path("bob", "direct", 30)
        pulse.keeps_going(300)
        measured("longest gap with 10 % loss", pulse.longest_gap(), 3.0)


def test_the_nearest_relay_is_home_and_another_takes_over_when_it_dies(lab, build, measured):
    """
    control   near   far (20 ms away)
       |       |      |
    ---+-------+------+--- internet ---+--- home [port-restricted] --- alice
                                       |
                                       +--- cafe [symmetric] --- carol
    """
    overlay = Overlay(lab, build, ("alice", "carol"))
    far = Node(build, lab.host("far", overlay.internet), public=True).start()
    far.host.delay(20)
    far.join(overlay.control.link())
    overlay.join()
    alice, carol = overlay.nodes["alice"], overlay.nodes["carol"]
    for node in (alice, carol):
        node.wait_for_relay("relay")

    with Echo(carol.host), Pulse(alice.host, carol.ip) as pulse:
        pulse.first_answer()
        overlay.relay.kill()
        measured("gap after the home relay was killed", pulse.gap_after(time.monotonic(), 30))
        for node in (alice, carol):
            node.wait_for_relay("far")


# ---- who leaves --------------------------------------------------------------------------------

def test_who_leaves_vanishes_from_the_others(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    bob.ctl("leave")

    bob.wait_for(lambda s: s["state"] == "not joined" and not s["peers"], "not joined")
    alice.wait_for(lambda s: "bob" not in {p["name"] for p in s["peers"]}, "does not know bob")
    assert overlay.control.names() == {"alice", "relay"}


def test_who_left_can_join_again(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    bob.ctl("leave")
    bob.wait_for(lambda s: s["state"] == "not joined", "not joined")

    bob.join(overlay.control.link())

    alice.wait_for_peer("bob")
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()


def test_who_is_removed_vanishes_and_carries_nothing_any_more(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        overlay.control.admin("node", "remove", "bob")
        alice.wait_for(lambda s: "bob" not in {p["name"] for p in s["peers"]}, "does not know bob")
        removed = time.monotonic()
        wait_until(lambda: time.monotonic() > removed + 0.5, what="half a second of pulses")

        assert not [n for n, at in list(pulse.sent.items()) if at > removed and n in pulse.answered]
    bob.wait_for(lambda s: s["state"] in ("removed", "not joined"), "knows that it was removed")
    assert overlay.control.names() == {"alice", "relay"}


# ---- garbage from strangers --------------------------------------------------------------------

def garbage(seed, count=200):
    """Datagrams and streams that parsers dislike: random, and almost right."""
    source = random.Random(seed)
    starts = [b"", b"\x01\0\0\0", b"\x02\0\0\0", b"\x03\0\0\0", b"\x04\0\0\0", b"\xd2p2p",
              b"\0\1\0\0\x21\x12\xa4\x42", b"\x16\x03\x01\x02\0\x01", b"GET /rpc HTTP/1.1\r\n",
              b'{"jsonrpc":"2.0","id":1,"method":"', b"\0" * 16, b"\xff" * 16]
    for _ in range(count):
        yield source.choice(starts) + source.randbytes(source.choice((0, 1, 20, 60, 148, 1200)))


def throw_datagrams(stranger, ip, port, seed):
    with stranger.socket() as s:
        for data in garbage(seed):
            s.sendto(data, (ip, port))


def throw_streams(connect, seed, count=30):
    """connect() gives a connected stream. What is not answered within 0.1 s is closed by us."""
    for data in garbage(seed, count):
        with connect() as s:
            s.settimeout(0.1)
            try:
                s.sendall(data)
                s.recv(4096)
            except OSError:
                pass


def tcp(host, ip, port):
    def connect():
        s = host.socket(kind=socket.SOCK_STREAM)
        s.settimeout(5)
        s.connect((ip, port))
        return s
    return connect


def test_garbage_on_every_socket_is_dropped_and_counted(overlay, lab):
    alice, bob, relay = (overlay.nodes[n] for n in ("alice", "bob", "relay"))
    stranger = lab.host("stranger", overlay.internet)
    port = int((relay.state / "port").read_text())
    before = relay.dropped()
    pids = {p.name + p.place.name: p.pid for p in lab.programs}

    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        begin = time.monotonic()
        throw_datagrams(stranger, relay.host.ip, port, 1)
        throw_datagrams(stranger, relay.host.ip, 3478, 2)
        throw_streams(tcp(stranger, relay.host.ip, 443), 3)
        throw_streams(tcp(stranger, overlay.control.host.ip, 8443), 4)

        def local():
            s = socket.socket(socket.AF_UNIX)
            s.connect(str(alice.socket_path))
            return s
        throw_streams(local, 5)
        pulse.keeps_going(50)
        lost = pulse.lost(since=begin)

    assert lost == 0, "of the others' traffic"
    assert relay.dropped() >= before + 200, "the datagrams at least"
    assert int(relay.status()["drops"]["relay refused: not TLS"]) > 0
    assert int(alice.status()["drops"]["local api: no request"]) > 0
    assert int(overlay.control.admin("status")["broken_handshakes"]) > 0
    assert all(p.running for p in lab.programs)
    assert {p.name + p.place.name: p.pid for p in lab.programs} == pids
    overlay.add("carol").join(overlay.control.link())


def test_a_stranger_with_a_certificate_of_its_own_is_not_relayed(overlay, lab):
    """
    stranger --TLS 443--> relay, with a self-signed certificate that claims to be alice
    """
    stranger = lab.host("stranger", overlay.internet)
    key, certificate = stranger.folder / "key.pem", stranger.folder / "certificate.pem"
    stranger.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                  "-nodes", "-days", "1", "-subj", "/CN=alice", "-keyout", key, "-out", certificate])

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["p2pnode-relay/1"])
    context.load_cert_chain(certificate, key)

    with tcp(stranger, overlay.relay.host.ip, 443)() as connection:
        with pytest.raises(ssl.SSLError, match="(?i)alert"):
            context.wrap_socket(connection).recv(1)
    assert overlay.relay.program.running
