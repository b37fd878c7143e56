"""A way round by a TURN server: Debian's coturn, p2pturn, and nodes that have nothing else.

    turn (coturn)   server
       |              |
    ---+--------------+---- internet 44.1.0.0/24 ----+----------------+
                                                     |                |
                                              home [symmetric]  office [symmetric]
                                                     |                |
                                                   alice             bob
"""

import socket
import subprocess
import time

import pytest

from lab import wait_until
from overlay import Overlay
from reach import host_of
from traffic import PingPulse

INTERNET = "44.1.0.0/24"
USER, PASSWORD = "alice", "not on any command line"


def serve(host, *more):
    """coturn on a host."""
    server = host.start(
        ["turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", *(more or ["--lt-cred-mech"]), "--realm", "lab",
         "--user", f"{USER}:{PASSWORD}", "--listening-ip", host.ip, "--relay-ip", host.ip,
         "--pidfile", host.folder / "turn.pid", "--userdb", host.folder / "turn.db", "--log-file", "stdout",
         "--simple-log", "--verbose"], name="coturn")
    server.wait_for_log("IPv4. UDP listener opened on", 10)
    return server


def write_password(host, password=PASSWORD):
    file = host.folder / "turn.password"
    file.write_text(password + "\n")
    return file


class Turn:
    """coturn on a host, and p2pturn beside a socket that stands for the node."""

    def __init__(self, lab, build):
        self.lab, self.build = lab, build
        internet = lab.network("internet", INTERNET)
        self.host = lab.host("turn", internet)
        self.routers = {name: lab.router(name, internet, nat="symmetric") for name in ("home", "office")}
        self.alice = lab.host("alice", self.routers["home"].inside)
        self.bob = lab.host("bob", self.routers["office"].inside)
        self.node = self.alice.socket()
        self.node.bind(("127.0.0.1", 0))
        self.node.settimeout(2)
        self.server = self.client = None

    def serve(self, *more):
        self.server = serve(self.host, *more)
        return self

    def ask(self, password=PASSWORD):
        """p2pturn, started."""
        self.client = self.alice.start(
            [self.build.program("p2pturn"), "--server", f"{self.host.ip}:3478", "--user", USER, "--password-file",
             write_password(self.alice, password), "--node-port", self.node.getsockname()[1], "--log-level", "debug"], stdin=subprocess.PIPE)
        return self

    def relayed(self):
        """The address that the server gave."""
        ip, port = self.client.wait_for_log(r"^relayed ([0-9.]+:\d+)$", 15)[1].split(":")
        return ip, int(port)

    def permit(self, ip):
        self.client.process.stdin.write(f"permit {ip}\n".encode())
        self.client.process.stdin.flush()

    def heard(self, sender, to, timeout=5):
        """What the node receives of a datagram that is sent until it does, or None: bytes and from where."""
        def arrives():
            sender.sendto(b"unasked", to)
            self.node.settimeout(0.2)
            try:
                return self.node.recvfrom(100)
            except TimeoutError:
                return None
        return wait_until(arrives, timeout, "something arrives through the TURN server")


@pytest.fixture(autouse=True)
def is_built(build):
    if not (build.folder / "programs" / "p2pturn").exists():
        pytest.skip("p2pturn is not built: libnice-dev is missing")


@pytest.fixture
def turn(lab, build):
    return Turn(lab, build)


def test_who_is_permitted_reaches_the_node_and_is_answered(turn):
    turn.serve().ask()
    relayed = turn.relayed()
    assert relayed[0] == turn.host.ip
    with turn.bob.socket() as bob:
        bob.settimeout(5)
        turn.permit(turn.routers["office"].ip)
        data, seen_at = turn.heard(bob, relayed)
        assert data == b"unasked" and seen_at[0] == "127.0.0.1"

        for size in (1, 2, 3, 4, 1200, 1400):  # by indications first, then by a channel
            for _ in range(3):
                turn.node.sendto(bytes(size), seen_at)
                assert bob.recvfrom(2000) == (bytes(size), relayed)
        turn.node.sendto(bytes(1480), seen_at)  # would have to go in pieces: by it paths are measured
        turn.node.sendto(b"after", seen_at)
        assert bob.recvfrom(2000) == (b"after", relayed)
        wait_until(lambda: "bound" in turn.server.output() or "CHANNEL_BIND" in turn.server.output(), 5,
                   "a channel")
        bob.sendto(b"by the channel", relayed)
        while (came := turn.node.recvfrom(100))[0] == b"unasked":
            pass
        assert came == (b"by the channel", seen_at)


def test_who_is_not_permitted_reaches_nothing(turn):
    turn.serve().ask()
    relayed = turn.relayed()
    turn.permit("44.1.0.200")
    with turn.bob.socket() as bob:
        with pytest.raises(Exception, match="something arrives"):
            turn.heard(bob, relayed, timeout=1)


def test_each_peer_is_seen_at_an_address_of_its_own(turn):
    turn.serve().ask()
    relayed = turn.relayed()
    turn.permit(turn.routers["office"].ip)
    with turn.bob.socket() as one, turn.bob.socket() as other:
        assert turn.heard(one, relayed)[1] != turn.heard(other, relayed)[1]


def test_the_address_is_given_back_at_the_end(turn):
    turn.serve().ask()
    turn.relayed()
    turn.client.process.stdin.close()
    assert turn.client.wait(5) == 0
    turn.server.wait_for_log("refreshed.*lifetime=0|lifetime=0", 5)


def test_a_wrong_password_gives_no_address_and_is_not_repeated_at_once(turn):
    turn.serve().ask(password="another")
    turn.client.wait_for_log(r"request 0: error 401(.|\n)*request 0: error 401", 10)
    assert "relayed" not in turn.client.output()
    assert turn.client.output().count("error 401") <= 3
    assert turn.client.stop(3) == 0


def test_an_address_that_was_given_without_the_password_is_not_believed(turn):
    turn.serve("--no-auth").ask()
    turn.server.wait_for_log("ALLOCATE processed, success", 5)
    assert turn.client.stop(3) == 0
    assert "relayed" not in turn.client.output()


def test_the_password_is_on_no_command_line_and_in_no_log(turn):
    turn.serve().ask()
    turn.relayed()
    command_line = open(f"/proc/{turn.client.pid}/cmdline").read()
    assert PASSWORD not in command_line and PASSWORD not in turn.client.output()


def test_who_reads_what_strangers_send_has_no_privileges(turn):
    turn.serve().ask()
    turn.relayed()
    status = open(f"/proc/{turn.client.pid}/status").read()
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd"):
        assert f"{name}:\t{0:016x}\n" in status
    assert "NoNewPrivs:\t1\n" in status


def test_a_server_that_begins_anew_gives_another_address(turn):
    turn.serve().ask()
    turn.relayed()
    turn.permit(turn.routers["office"].ip)
    turn.server.kill()
    turn.client.stop(3)
    turn.serve()
    turn.ask()
    with turn.bob.socket() as bob:
        turn.permit(turn.routers["office"].ip)
        assert turn.heard(bob, turn.relayed())[0] == b"unasked"


def test_at_another_address_of_the_machine_there_is_another_relayed_address(turn):
    turn.serve().ask()
    turn.relayed()
    turn.alice.move(turn.alice.ip.rsplit(".", 1)[0] + ".77")
    turn.client.process.stdin.write(b"network\n")
    turn.client.process.stdin.flush()
    turn.client.wait_for_log(r"relayed -(.|\n)*relayed [0-9.]+:\d+", 10)


def test_a_network_that_changed_elsewhere_costs_no_address(turn):
    turn.serve().ask()
    turn.relayed()
    turn.client.process.stdin.write(b"network\n")
    turn.client.process.stdin.flush()
    turn.server.wait_for_log(r"refreshed", 5)
    assert "relayed -" not in turn.client.output()


def test_forged_answers_of_the_server_change_nothing(turn):
    """Who cannot read the requests knows no transaction; what is no answer at all is nothing either."""
    turn.serve().ask()
    before = turn.relayed()
    client = turn.alice.run(["ss", "-Hunp"]).stdout
    assert "p2pturn" in client
    with turn.host.socket() as forger:
        for junk in (b"", b"\x00", b"\x40\x00\xff\xff", b"\x01\x03" + bytes(18), bytes(1400)):
            forger.sendto(junk, (turn.routers["home"].ip, 3478))
    assert turn.client.running and turn.relayed() == before


# ---- nodes ---------------------------------------------------------------------------------------

HARD = {"nat": "symmetric"}


class TurnOverlay(Overlay):
    """alice and bob behind hard NATs, or others; alice may use a TURN server."""

    def __init__(self, lab, build, password=PASSWORD, nat=HARD):
        super().__init__(lab, build, members=(), nats={"alice": nat, "bob": nat}, internet=(INTERNET,))
        self.turn = lab.host("turn", self.internet)
        self.server = serve(self.turn)
        file = write_password(self.turn, password)
        self.config["alice"] = f"[turn]\nserver = {self.turn.ip}:3478\nuser = {USER}\npassword_file = {file}\n"
        for name in ("alice", "bob"):
            self.add(name)
        self.join()


def turned(node):
    return [e["endpoint"] for e in node.status()["endpoints"] if e["kind"] == "turn"]


def test_two_nodes_behind_hard_nats_meet_by_a_turn_server_which_then_is_all_they_need(lab, build, measured):
    overlay = TurnOverlay(lab, build)
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    relayed = wait_until(lambda: turned(alice), 15, "alice has an address at the TURN server")[0]
    assert relayed.startswith(overlay.turn.ip + ":")
    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(5)
        measured("direct by TURN", bob.wait_for_path("alice", "direct", 15))
        measured("direct by TURN, the other way", alice.wait_for_path("bob", "direct", 15))
    assert bob.peer("alice")["endpoint"] == relayed
    assert alice.peer("bob")["endpoint"].startswith("127.0.0.1:")
    assert alice.peer("bob")["by_turn"] and bob.peer("alice")["by_turn"]

    overlay.relay.kill()
    overlay.control.kill()
    with PingPulse(alice.host, bob.ip) as pulse:
        pulse.first_answer(5)

    assert alice.program.stop(3) == 0
    overlay.server.wait_for_log("lifetime=0", 5)


def test_a_path_without_the_turn_server_is_taken_where_there_is_one(lab, build, measured):
    """The server, which needs no hole, answers first, and is as near as the peer."""
    overlay = TurnOverlay(lab, build, nat={"nat": "eim-apdf", "lag_ms": 1000})
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    wait_until(lambda: turned(alice), 15, "alice has an address at the TURN server")
    straight = [overlay.routers[name].ip for name in ("bob", "alice")]

    def by():
        return [host_of(node.peer(peer)["endpoint"] or ":0") for node, peer in ((alice, "bob"), (bob, "alice"))]
    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(5)
        bob.wait_for_path("alice", "direct", 15)
        begin = time.monotonic()
        wait_until(lambda: by() == straight, 20, lambda: f"by {straight}, but {by()}")
        measured("from TURN to the path without it", time.monotonic() - begin)
        pulse.keeps_going(500)
        assert by() == straight
        assert not bob.peer("alice")["by_turn"]


def test_a_node_whose_turn_server_refuses_it_does_without(lab, build):
    overlay = TurnOverlay(lab, build, password="another")
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    with PingPulse(bob.host, alice.ip) as pulse:
        pulse.first_answer(5)
    assert not turned(alice)
    assert PASSWORD not in alice.program.output()
