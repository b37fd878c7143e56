"""QUIC at the front door: HTTP/3 of what runs behind a NAT, by UDP 443.

      control    relay (public node, front door)    outside: gtlsclient
         |          |                                  |
      ---+----------+---- internet 198.51.100.0/24 ----+--------+
                                                                |
                                                     home [port-restricted]
                                                                |
                                                              alice: gtlsserver, at her overlay address

Client and server are those of ngtcp2. tests/unit/frontdoor has the door's rules one by one.
"""

import os
import socket
import time

import pytest

from lab import wait_until
from overlay import Overlay

BYTES = 3_000_000


class Server:
    """HTTP/3 on all of a node's addresses."""

    def __init__(self, node, *options, port=8443):
        self.folder = node.host.folder / f"h3-{port}"
        self.folder.mkdir()
        (self.folder / "large").write_bytes(os.urandom(BYTES))
        key, certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        node.host.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                       "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=app.demo"])
        self.program = node.host.start(["gtlsserver", "--quiet", "--mime-types-file=/dev/null", *options, "-d",
                                        self.folder, "*", str(port), key, certificate], name=f"h3-{port}")
        self.program.wait_for_log("Using document root")


@pytest.fixture
def town(lab, build):
    """The network as drawn, its front door open, alice's servers behind it: one of them validates addresses by Retry."""
    overlay = Overlay(lab, build, members=("alice",))
    overlay.relay.config.write_text(overlay.relay.config.read_text() + """
[frontdoor]
listen = 80, 443
host = app.demo alice:8443
host = retry.demo alice:9443
host = gone.demo nobody:443
host = dumb.demo alice:7443
""")
    overlay.relay.kill()
    overlay.relay.start()
    overlay.join()
    overlay.outside = lab.host("outside", overlay.internet)
    overlay.server = Server(overlay.nodes["alice"])
    return overlay


def fetch(town, *options, host="app.demo", server=None, ip=None):
    """From outside: what the client says if it did not get the page byte for byte, else nothing."""
    folder = town.outside.folder / "got"
    folder.mkdir(exist_ok=True)
    page = folder / "large"
    page.unlink(missing_ok=True)
    names = town.outside.folder / "hosts"
    names.write_text(f"{ip or town.relay.host.ip} {host}\n")
    # The client names the host in its hello only where it found the address by that name.
    client = town.outside.run(["unshare", "--mount", "sh", "-c", f'mount --bind {names} /etc/hosts && exec "$@"', "sh",
                               "gtlsclient", "--quiet", "--exit-on-all-streams-close", "--timeout=20s",
                               f"--download={folder}", *options, host, "443", f"https://{host}/large"], check=False)
    wanted = ((server or town.server).folder / "large").read_bytes()
    if page.exists() and page.read_bytes() == wanted:
        return ""
    return client.stdout + client.stderr or "nothing, and no word of it"


def drops(town, name):
    return int(town.relay.status()["drops"].get(f"front door, QUIC: {name}", 0))


def test_http3_behind_a_nat_has_a_public_address_and_who_asks_for_another_host_gets_no_answer(town):
    assert fetch(town) == ""
    # The visitor's NAT forgets it, between handshake and request: alice sees where it is now, and asks who is there.
    assert fetch(town, "--change-local-addr=100ms", "--nat-rebinding", "--delay-stream=300ms") == ""
    retrying = Server(town.nodes["alice"], "--validate-addr", port=9443)
    assert fetch(town, host="retry.demo", server=retrying) == ""

    for host in ("other.demo", "gone.demo", "dumb.demo"):
        assert "HANDSHAKE_TIMEOUT" in fetch(town, "--handshake-timeout=500ms", host=host)
    wait_until(lambda: drops(town, "unknown host") > 0 and drops(town, "nobody there") > 0, 5, "counted")
    wait_until(lambda: drops(town, "target not reached") > 0, 5, "nobody listens at alice's UDP port")
    assert "ERR_RECV_VERSION_NEGOTIATION" in fetch(town, "--version=0x1a2a3a4a")


def test_http3_of_a_host_that_a_member_publishes_goes_through_its_acceptor(lab, build):
    """As p2pctl expose has it: nothing of the host is in the door's configuration."""
    overlay = Overlay(lab, build, members=("alice",))
    overlay.join_with_front_door("[frontdoor]\nlisten = 80, 443\n")
    alice = overlay.nodes["alice"]
    overlay.server = Server(alice)
    overlay.control.admin("host", "add", "alice", "app.demo")

    def exposure():
        return alice.rpc("node.exposures")["exposures"][0]

    def expose(*options):
        alice.ctl("expose", "https://app.demo", "8443", *options)
        wait_until(lambda: overlay.control.admin("host", "list")["hosts"][0]["exposed"], 10, "published")

    expose()
    wait_until(lambda: fetch(overlay) == "", 10, "the door has heard of it")
    before = int(exposure()["bytes_out"])
    # The visitor's NAT forgets it: another flow, to the same member.
    assert fetch(overlay, "--change-local-addr=100ms", "--nat-rebinding", "--delay-stream=300ms") == ""
    assert int(exposure()["bytes_out"]) - before > BYTES and int(exposure()["visitors"]) >= 3
    # Nobody speaks TCP there, and HTTP/3 does not hide it.
    assert exposure()["server"] == "down"

    for options in (["--allow", "10.0.0.0/8"], ["--quic", "no"], ["--proxy", "v2"]):
        expose(*options)
        assert exposure()["quic"] == (options[0] == "--allow")
        visitors = exposure()["visitors"]
        assert "HANDSHAKE_TIMEOUT" in fetch(overlay, "--handshake-timeout=500ms"), options
        assert exposure()["visitors"] == visitors, "refused, not slow"
    expose()
    assert fetch(overlay) == ""
    alice.ctl("unexpose", "https://app.demo")
    wait_until(lambda: "HANDSHAKE_TIMEOUT" in fetch(overlay, "--handshake-timeout=500ms"), 10, "it is nobody's")


# ---- floods ----

EACH = 150  # of what has to be opened: as much as one source may have opened at once, together
REFUSED = ("unknown host", "not understood", "of no connection", "too many a second")


def hello_of_a_stranger(town, host):
    """What a client says first that wants a host which is nobody's."""
    with host.socket() as door:
        door.bind((host.ip, 443))
        door.settimeout(10)
        fetch(town, "--handshake-timeout=200ms", host="other.demo", ip=host.ip)
        return door.recv(2000)


def flood(town, stranger, make):
    """By how much what is dropped has grown when each is counted, or answered; and how many answers came."""
    before = {name: drops(town, name) for name in REFUSED}
    answers = 0

    def more():
        nonlocal answers
        try:
            while stranger.recv(2000):
                answers += 1
        except BlockingIOError:
            return {name: drops(town, name) - before[name] for name in REFUSED}

    for _ in range(EACH):
        stranger.send(make())
    wait_until(lambda: sum(more().values()) + answers >= EACH, 10, lambda: f"each is counted: {more()}, {answers} answers")
    return more(), answers


def test_a_flood_of_bad_datagrams_is_counted_logged_a_little_and_hides_no_target_that_is_down(town):
    crowd = town.lab.host("crowd", town.internet)
    hello = hello_of_a_stranger(town, crowd)
    broken = hello[:-1] + bytes([hello[-1] ^ 1])
    other_version = b"\xc0\x1a\x2a\x3a\x4a\x08" + hello[6:14] + b"\x04self" + bytes(1200 - 19)
    logged, begin = len(town.relay.program.output()), time.monotonic()
    with crowd.socket() as stranger:
        stranger.connect((town.relay.host.ip, 443))
        stranger.setblocking(False)
        assert flood(town, stranger, lambda: b"\x40" + os.urandom(40))[0]["of no connection"] == EACH
        assert flood(town, stranger, lambda: broken)[0]["not understood"] == EACH
        assert flood(town, stranger, lambda: hello)[0]["unknown host"] == EACH
        refused, answers = flood(town, stranger, lambda: other_version)
        assert answers > 0 and refused["too many a second"] == EACH - answers
        for name, n in flood(town, stranger, lambda: b"\xc0" + os.urandom(1199))[0].items():
            assert n == 0 or name in ("not understood", "too many a second"), name  # or a version that is told there are others
        # Among strangers' hosts, what the operator should know is in the log; and others are served.
        refused, answers = flood(town, stranger, lambda: hello)
        assert answers == 0 and refused["unknown host"] + refused["too many a second"] == EACH
        assert "HANDSHAKE_TIMEOUT" in fetch(town, "--handshake-timeout=200ms", host="dumb.demo")
        assert fetch(town) == ""
    seconds = time.monotonic() - begin + 2
    lines = [line for line in town.relay.program.output()[logged:].splitlines() if "frontdoor:" in line]
    strangers = [line for line in lines if "unknown host: other.demo" in line]
    assert 0 < len(strangers) <= 5 * seconds, "so many a second"
    assert any("QUIC target not reached: dumb.demo at " in line for line in lines), lines
    assert len(lines) - len(strangers) <= 2, "of all else nothing is said"
