"""Ports that members publish: a port of the front door leads to a member, whatever is spoken there.

      control    relay (public node, front door)    outside
         |          |                                  |
      ---+----------+---- internet 198.51.100.0/24 ----+--------+
                                                                |
                                                     home [port-restricted]
                                                                |
                                                              alice: servers, at 127.0.0.1 alone

The rules one by one: tests/unit/frontdoor/test_port_name.c, test_door_ports.c, test_datagram_flows.c.
"""

import json
import socket
import struct
import threading

import pytest

from lab import LabError, wait_until
from overlay import Overlay

BANNER = b"SSH-2.0-Lab_1\r\n"
DOOR = "[frontdoor]\nlisten = 80\ntcp_ports = 2222, 2223, 30000-30010\nudp_ports = 5353, 5354\n"


@pytest.fixture
def town(lab, build):
    overlay = Overlay(lab, build, members=("alice",))
    relay = overlay.relay
    relay.config.write_text(relay.config.read_text() + "tls_port = 9443\n" + DOOR)
    relay.kill()
    relay.start()
    overlay.join()
    overlay.outside = lab.host("outside", overlay.internet)
    return overlay


def exposures(node):
    return {one["host"]: one for one in node.rpc("node.exposures")["exposures"]}


def wait_for_state(node, host, state):
    wait_until(lambda: exposures(node)[host]["state"] == state, 15, lambda: f"{host}: {state}; {exposures(node).get(host)}")


def listen(node, port):
    listener = node.host.socket(kind=socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(20)
    return listener


class Speaker(threading.Thread):
    """Says its banner first, then echoes to the end, and ends when its visitor has ended."""

    def __init__(self, node, port, skip_header=False):
        super().__init__(daemon=True)
        self.listener, self.headers, self.skip_header = listen(node, port), [], skip_header
        self.start()

    def run(self):
        while True:
            try:
                visitor, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(visitor,), daemon=True).start()

    def serve(self, visitor):
        try:
            with visitor:
                visitor.settimeout(30)
                if self.skip_header and not self.take_header(visitor):
                    return
                visitor.sendall(BANNER)
                while data := visitor.recv(65536):
                    visitor.sendall(data)
                visitor.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def take_header(self, visitor):
        head = visitor.recv(16, socket.MSG_WAITALL)
        if len(head) < 16:
            return False  # who only looks whether it is there
        (length,) = struct.unpack(">H", head[14:16])
        self.headers.append(head + visitor.recv(length, socket.MSG_WAITALL))
        return True

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def connect(town, port):
    visitor = town.outside.socket(kind=socket.SOCK_STREAM)
    visitor.settimeout(20)
    visitor.connect((town.relay.host.ip, port))
    return visitor


def banner(town, port):
    """None: nobody listens there, or it is reset."""
    try:
        with connect(town, port) as visitor:
            return visitor.recv(len(BANNER), socket.MSG_WAITALL)
    except (ConnectionRefusedError, ConnectionResetError):
        return None


def is_closed(town, port):
    with town.outside.socket(kind=socket.SOCK_STREAM) as visitor:
        visitor.settimeout(5)
        try:
            visitor.connect((town.relay.host.ip, port))
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # it was asked in while the port was closed
            return False
        return False


def test_a_tcp_port_leads_to_the_member_to_whom_it_is_granted(town):
    alice, relay, control = town.nodes["alice"], town.relay, town.control
    server = Speaker(alice, 2022)

    # It waits for a grant, and says what to do; the port is closed.
    said = alice.ctl("expose", "tcp", ":2222", "2022").stdout
    assert "not live yet: not granted" in said and "p2pctl admin port add alice 'tcp:2222'" in said
    assert is_closed(town, 2222)
    assert control.admin("port", "list")["ports"] == [
        {"port": "tcp:2222", "name": "alice", "granted": False, "exposed": True, "online": True}]
    assert control.admin("host", "list")["hosts"] == []
    control.admin("port", "add", "alice", "tcp:2222")
    wait_for_state(alice, "tcp:2222", "live")
    assert control.admin("port", "list")["ports"][0]["granted"]

    # The server speaks first.
    assert banner(town, 2222) == BANNER
    with connect(town, 2222) as visitor:
        assert visitor.recv(len(BANNER), socket.MSG_WAITALL) == BANNER
        big = bytes(range(256)) * (4 << 12)  # 4 MiB
        sender = threading.Thread(target=lambda: (visitor.sendall(big), visitor.shutdown(socket.SHUT_WR)))
        sender.start()
        assert b"".join(iter(lambda: visitor.recv(1 << 16), b"")) == big  # half closed by the visitor, then whole
        sender.join()
    wait_until(lambda: exposures(alice)["tcp:2222"]["visitors_now"] == "0", 10, "it has left")
    assert int(exposures(alice)["tcp:2222"]["bytes_out"]) >= len(big)

    # The target is told who it is, and who may not come is reset.
    server.stop()
    server = Speaker(alice, 2022, skip_header=True)
    alice.ctl("expose", "tcp:2222", "2022", "--proxy", "v2")
    assert wait_until(lambda: banner(town, 2222) == BANNER, 10, "with a header")
    head = server.headers[-1]
    assert socket.inet_ntoa(head[16:20]) == town.outside.ip and head[13] == 0x11 and b"tcp:2222" in head
    alice.ctl("expose", "tcp", ":2222", "2022", "--proxy", "v2", "--allow", "10.0.0.0/8")
    assert banner(town, 2222) in (None, b"")
    wait_until(lambda: exposures(alice)["tcp:2222"]["not_allowed"] != "0", 10, "counted")
    alice.ctl("expose", "tcp:2222", "2022", "--proxy", "v2")

    # After a restart of the door, and of the member, it is there again.
    relay.kill()
    relay.start()
    wait_until(lambda: banner(town, 2222) == BANNER, 20, "after a restart of the door")
    alice.kill()
    alice.start()
    wait_until(lambda: banner(town, 2222) == BANNER, 20, "after a restart of the member")

    # What is revoked is closed; who is there stays.
    alice.wait_for_control()
    with connect(town, 2222) as visitor:
        assert visitor.recv(len(BANNER), socket.MSG_WAITALL) == BANNER
        control.admin("port", "remove", "alice", "tcp:2222")
        wait_until(lambda: is_closed(town, 2222), 10, "revoked")
        visitor.sendall(b"still here")
        assert visitor.recv(10, socket.MSG_WAITALL) == b"still here"
    wait_for_state(alice, "tcp:2222", "not granted")

    # The door opens what its operator lets it, and says when it cannot.
    alice.ctl("expose", "tcp", ":2300", "2022")
    control.admin("port", "add", "alice", "tcp:2300", "--on", "relay")
    wait_for_state(alice, "tcp:2300", "port not opened")
    assert "as of relay, adds it to tcp_ports" in exposures(alice)["tcp:2300"]["why"]
    taken = relay.host.socket(kind=socket.SOCK_STREAM)
    taken.bind(("0.0.0.0", 2223))
    taken.listen(1)
    control.admin("port", "add", "alice", "tcp:2223", "--on", "relay")
    alice.ctl("expose", "tcp:2223", "2022", "--proxy", "v2")
    wait_for_state(alice, "tcp:2223", "port taken")
    assert "relay could not open TCP port 2223: another program has it" in alice.ctl("exposures").stdout
    taken.close()
    wait_for_state(alice, "tcp:2223", "live")
    assert banner(town, 2223) == BANNER
    alice.ctl("unexpose", "tcp", ":2223")
    wait_until(lambda: is_closed(town, 2223), 10, "unexposed")
    server.stop()


def test_words_that_name_no_port_are_refused(town):
    alice, control = town.nodes["alice"], town.control

    for words in (("tcp", "2222x", "22"), ("tcp", ":0", "22"), ("udp", ":70000", "53"), ("tcp", ":22")):
        assert alice.ctl("expose", *words, check=False).returncode == 2, words
    assert "v2 or none" in alice.ctl("expose", "udp", ":5353", "53", "--proxy", "v1", check=False).stderr
    assert control.admin("port", "add", "alice", "2222", check=False).returncode == 2
    nobody = control.admin("port", "add", "alice", "tcp:22", "--on", "nobody", check=False)
    assert nobody.returncode != 0 and "no node of the name 'nobody'" in nobody.stderr
    assert control.admin("port", "remove", "alice", "tcp:22", check=False).returncode != 0


class Answerer(threading.Thread):
    """Answers each datagram with itself, and says what headers it saw."""

    def __init__(self, node, port, skip_header=False):
        super().__init__(daemon=True)
        self.sock = node.host.socket(kind=socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", port))
        self.headers, self.skip_header = [], skip_header
        self.start()

    def run(self):
        while True:
            try:
                data, visitor = self.sock.recvfrom(65535)
            except OSError:
                return
            if not data:
                return
            if self.skip_header:
                end = 16 + struct.unpack(">H", data[14:16])[0]
                self.headers.append(data[:end])
                data = data[end:]
            self.sock.sendto(data.upper(), visitor)

    def stop(self):
        address = self.sock.getsockname()
        self.sock.sendto(b"", address)
        self.join()
        self.sock.close()


def ask(town, port, text=b"question", timeout=1.0, sock=None, to=None):
    """None: no answer."""
    with (sock.dup() if sock else town.outside.socket(kind=socket.SOCK_DGRAM)) as visitor:
        visitor.settimeout(timeout)
        visitor.sendto(text, (to or town.relay.host.ip, port))
        try:
            return visitor.recv(65535)
        except (TimeoutError, ConnectionRefusedError):
            return None


def test_a_udp_port_leads_to_the_member_to_whom_it_is_granted(town):
    alice, relay, control = town.nodes["alice"], town.relay, town.control
    server = Answerer(alice, 5300)

    alice.ctl("expose", "udp", ":5353", "5300")
    assert ask(town, 5353, timeout=0.3) is None
    control.admin("port", "add", "alice", "udp:5353")
    wait_for_state(alice, "udp:5353", "live")
    wait_until(lambda: ask(town, 5353) == b"QUESTION", 10, "answered")

    # Several visitors at once, each gets its own answers; also what has to be cut into pieces.
    visitors = [town.outside.socket(kind=socket.SOCK_DGRAM) for _ in range(20)]
    for turn in range(3):
        for i, visitor in enumerate(visitors):
            visitor.sendto(b"v%d-%d" % (i, turn), (relay.host.ip, 5353))
        for i, visitor in enumerate(visitors):
            visitor.settimeout(5)
            assert visitor.recv(100) == b"V%d-%d" % (i, turn)
    assert ask(town, 5353, b"x" * 5000, timeout=5) == b"X" * 5000
    assert int(exposures(alice)["udp:5353"]["visitors"]) >= 20

    # The target is told who it is, in each datagram; who may not come gets no answer.
    server.stop()
    server = Answerer(alice, 5300, skip_header=True)
    alice.ctl("expose", "udp:5353", "5300", "--proxy", "v2")
    wait_until(lambda: ask(town, 5353) == b"QUESTION", 10, "with a header")
    head = server.headers[-1]
    assert socket.inet_ntoa(head[16:20]) == town.outside.ip and head[13] == 0x12 and b"udp:5353" in head
    alice.ctl("expose", "udp:5353", "5300", "--proxy", "v2", "--allow", "10.0.0.0/8")
    assert ask(town, 5353, timeout=0.5) is None
    wait_until(lambda: exposures(alice)["udp:5353"]["not_allowed"] != "0", 10, "counted")

    # What nobody takes is told, until it answers again.
    alice.ctl("expose", "udp:5353", "5300")
    server.stop()
    assert ask(town, 5353, timeout=0.3) is None
    wait_for_state(alice, "udp:5353", "target down")
    server = Answerer(alice, 5300)
    assert ask(town, 5353, timeout=5) == b"QUESTION"
    wait_for_state(alice, "udp:5353", "live")

    # After a restart of the door, and of the member, it is there again.
    for node in (relay, alice):
        node.kill()
        node.start()
        wait_until(lambda: ask(town, 5353, timeout=0.5) == b"QUESTION", 20, "after a restart")
    alice.wait_for_control()

    # A port that another program has is told; and what is unexposed is closed at once, for who is there as well.
    taken = relay.host.socket(kind=socket.SOCK_DGRAM)
    taken.bind(("0.0.0.0", 5354))
    control.admin("port", "add", "alice", "udp:5354")
    alice.ctl("expose", "udp:5354", "5300")
    wait_for_state(alice, "udp:5354", "port taken")
    assert "relay could not open UDP port 5354: another program has it" in alice.ctl("exposures").stdout
    taken.close()
    visitor = visitors[0]
    assert ask(town, 5353, sock=visitor, timeout=5) == b"QUESTION"
    alice.ctl("unexpose", "udp", ":5353")
    wait_until(lambda: ask(town, 5353, sock=visitor, timeout=0.2) is None, 5, "unexposed")
    wait_for_state(alice, "udp:5354", "live")
    server.stop()


def acceptor_port_of_udp(alice):
    """As the kernel has it: addresses of IPv4 in the machine's order."""
    wanted = "%08X" % struct.unpack("=I", socket.inet_aton(alice.ip))[0]
    for line in alice.host.run(["cat", "/proc/net/udp"]).stdout.splitlines()[1:]:
        ip, port = line.split()[1].split(":")
        if ip == wanted:
            return int(port, 16)
    return None


def drops(node, why):
    return int(node.status()["drops"].get(why, 0))


def test_nobody_at_the_members_link_speaks_in_a_doors_name(town):
    """By the member's Ethernet address, to its overlay address: its kernel takes it there by any interface."""
    alice, relay = town.nodes["alice"], town.relay
    server = Answerer(alice, 5300)
    alice.ctl("expose", "udp:5353", "5300")
    town.control.admin("port", "add", "alice", "udp:5353")
    wait_until(lambda: ask(town, 5353) == b"QUESTION", 20, "answered")
    place = (alice.ip, wait_until(lambda: acceptor_port_of_udp(alice), 5, "the acceptor's port"))

    neighbour = town.lab.host("neighbour", town.routers["alice"].inside)
    neighbour.run(["ip", "address", "add", f"{relay.ip}/32", "dev", "lo"])
    neighbour.run(["ip", "route", "add", f"{alice.ip}/32", "via", alice.host.ip])
    for interface in ("all", "eth0"):
        alice.host.sysctl(f"net.ipv4.conf.{interface}.rp_filter", "0")
    with neighbour.socket(kind=socket.SOCK_DGRAM) as stranger:
        stranger.bind((relay.ip, 0))
        stranger.sendto(b"no header", place)
        wait_until(lambda: drops(alice, "exposed, UDP port: not by a front door") == 1, 5, lambda: str(alice.status()["drops"]))
    assert drops(alice, "exposed, UDP port: header not understood") == 0

    # The door itself is heard as before.
    assert ask(town, 5353, timeout=5) == b"QUESTION"
    server.stop()


def test_an_exposure_of_before_the_port_was_offered_does_not_lead_the_door_to_itself(town):
    relay = town.relay
    relay.ctl("expose", "tcp", ":2224", "2224")
    town.control.admin("port", "add", "relay", "tcp:2224")
    wait_for_state(relay, "tcp:2224", "port not opened")

    relay.config.write_text(relay.config.read_text().replace("2222, 2223", "2222-2224"))
    relay.kill()
    relay.start()
    wait_until(lambda: not is_closed(town, 2224), 15, "the door has the port")
    with town.outside.socket(kind=socket.SOCK_STREAM) as visitor:
        visitor.settimeout(5)
        visitor.connect((relay.host.ip, 2224))
        visitor.sendall(b"hello")
        try:
            assert visitor.recv(1) == b""
        except ConnectionResetError:
            pass
    wait_until(lambda: drops(relay, "exposed: nobody there") > 0, 5, lambda: str(relay.status()["drops"]))
    assert exposures(relay)["tcp:2224"]["visitors"] == "0"


def test_ports_of_the_door_that_lead_to_each_other_are_refused(town):
    """Also when one of them was there before it was a ring; a server behind one of them is none."""
    relay = town.relay
    both = [f"service = tcp:2222 {relay.host.ip}:2223", f"service = tcp:2223 {relay.host.ip}:2222"]
    for lines in (both[:1], both):  # of the configuration the same is said before it is used
        config = relay.state / "ring.conf"
        config.write_text(relay.config.read_text() + "\n".join(["", "[expose]", *lines, ""]))
        checked = relay.host.run([relay.build.program("p2pnode"), "--check-config", "-c", config], check=False)
        assert (checked.returncode == 0) == (lines != both) and ("is the front door itself" in checked.stderr) == (lines == both)
    relay.ctl("expose", "tcp", ":2222", "2223")
    refused = relay.ctl("expose", "tcp", ":2223", f"{relay.host.ip}:2222", check=False)
    assert refused.returncode != 0 and "is the front door itself" in refused.stderr
    relay.ctl("expose", "tcp", ":2223", "22")
    relay.ctl("expose", "udp", ":2222", "2223")
