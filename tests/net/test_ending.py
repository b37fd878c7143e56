"""p2pnode ends within two seconds of SIGTERM, whatever is under way, and frees all it has.

The build under test has AddressSanitizer, so exit code 0 also says that nothing leaked. What is
cut in these tests is cut without a word, as a firewall would: packets vanish.
"""

import json
import signal
import socket
import time

import pytest

from lab import wait_until
from overlay import CONTROL_PORT, Node, Overlay
from traffic import Echo, Pulse

ENDS = 2.0  # seconds
VANISH = "table inet vanish {{ chain input {{ type filter hook input priority -10; {} drop; }}; }}"


@pytest.fixture
def overlay(lab, build):
    return Overlay(lab, build).join()


def cut_off(node):
    """The host hears nothing any more, from control, relay or anybody."""
    node.host.nft(VANISH.format('iifname "eth0"'))


def ask(node, method, **params):
    """A request on the local API whose answer is not waited for; the open socket."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(str(node.socket_path))
    s.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
              + b"\n")
    return s


def answer(asked):
    with asked, asked.makefile("rb") as lines:
        return json.loads(lines.readline())


def ends(node):
    """SIGTERM, and it ends in time, as asked; the seconds it took."""
    begin = time.monotonic()
    code = node.program.stop()
    took = time.monotonic() - begin
    assert code == 0, node.program.tail()
    assert "left open" not in node.program.output()
    return took


# ---- what is under way -------------------------------------------------------------------------

def joining(overlay, alice):
    alice.ctl("leave")
    link = overlay.control.link()
    overlay.control.host.nft(VANISH.format(f"tcp dport {CONTROL_PORT}"))
    asked = ask(alice, "node.join", link=link)
    alice.wait_for(lambda s: s["state"] == "joining", "joining")
    return asked


def names_are_not_answered(overlay, node):
    (node.host.folder / "resolv.conf").write_text(f"nameserver {overlay.control.host.ip}\n")
    node.host.run(["mount", "--bind", node.host.folder / "resolv.conf", "/etc/resolv.conf"])
    overlay.control.host.nft(VANISH.format("udp dport 53"))


def looking_up_a_name(overlay, alice):
    alice.ctl("leave")
    names_are_not_answered(overlay, alice)
    asked = ask(alice, "node.join", link=overlay.control.link().replace(
        overlay.control.host.ip, "control.example"))
    alice.wait_for(lambda s: s["state"] == "joining", "joining")
    return asked


def leaving(overlay, alice):
    cut_off(alice)
    asked = ask(alice, "node.leave")
    alice.answers()  # the request before it has been read
    return asked


def pinging(overlay, alice):
    overlay.nodes["bob"].kill()
    asked = ask(alice, "node.ping", peer="bob", timeout_ms=10000)
    alice.answers()
    return asked


def checking_the_net(overlay, alice):
    asked = ask(alice, "node.netcheck")
    alice.answers()
    return asked


def backing_off(overlay, alice):
    alice.program.signal(signal.SIGUSR1)
    alice.program.wait_for_log("next session in")


def making_the_interface_again(overlay, alice):
    alice.host.run(["ip", "link", "delete", "p2p0"])
    alice.program.wait_for_log("was deleted")


def failing_to_make_the_interface(overlay, alice):
    alice.host.run(["mount", "--bind", "/dev/null", "/dev/net/tun"])
    alice.host.run(["ip", "link", "delete", "p2p0"])
    alice.program.wait_for_log("next try in")


def cut_off_with_traffic(overlay, alice):
    with Echo(overlay.nodes["bob"].host), Pulse(alice.host, overlay.nodes["bob"].ip) as pulse:
        pulse.first_answer()
        cut_off(alice)


def reconnecting_to_what_does_not_answer(overlay, alice):
    cut_off(alice)
    alice.program.stop()
    alice.start()
    alice.program.wait_for_log("member of")


def looking_for_control_by_name(overlay, alice):
    alice.program.stop()
    file = alice.state / "membership.json"
    file.write_text(file.read_text().replace(f'"{overlay.control.host.ip}"', '"control.example"'))
    assert "control.example" in file.read_text()
    names_are_not_answered(overlay, alice)
    alice.start()
    bob = overlay.nodes["bob"]
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()  # by the cached map


def deleting_the_interface_while_backing_off(overlay, alice):
    for _ in range(3):
        before = alice.program.output().count("next session in")
        alice.program.signal(signal.SIGUSR1)
        wait_until(lambda: alice.program.output().count("next session in") > before, 5, "backs off")
        alice.wait_for(lambda s: s["state"] == "running", "a new session")
    alice.program.signal(signal.SIGUSR1)
    making_the_interface_again(overlay, alice)
    alice.wait_for_control()
    bob = overlay.nodes["bob"]
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()


@pytest.mark.parametrize("under_way", [
    joining, looking_up_a_name, looking_for_control_by_name, leaving, pinging, checking_the_net,
    backing_off, deleting_the_interface_while_backing_off, making_the_interface_again,
    failing_to_make_the_interface, cut_off_with_traffic, reconnecting_to_what_does_not_answer])
def test_it_ends_while(overlay, under_way, measured):
    alice = overlay.nodes["alice"]
    asked = under_way(overlay, alice)

    took = ends(alice)

    if asked:
        asked.close()
    measured(f"until it ended while {under_way.__name__}", took, ENDS)


def test_it_ends_at_any_moment_of_its_start(overlay):
    alice = overlay.nodes["alice"]
    ends(alice)

    for step in range(60):  # while it connects to control: every 0.15 ms
        alice.program.restart()
        while "member of" not in alice.program.output():
            assert alice.program.running
        begin = time.monotonic()
        while time.monotonic() < begin + step * 0.00015:
            pass
        assert ends(alice) < ENDS


# ---- what must have happened when it ends ------------------------------------------------------

def test_who_was_leaving_when_it_was_ended_has_left(overlay):
    alice = overlay.nodes["alice"]
    asked = leaving(overlay, alice)

    ends(alice)

    asked.close()
    alice.start()
    assert alice.status()["state"] == "not joined"


def test_who_was_joining_when_it_was_ended_joins_with_the_same_link(overlay, lab, build):
    dave = Node(build, lab.host("dave", overlay.internet)).start()
    link = overlay.control.link()
    overlay.control.program.signal(signal.SIGSTOP)
    with ask(dave, "node.join", link=link):
        dave.wait_for(lambda s: s["state"] == "joining", "joining")
        ends(dave)
    overlay.control.program.signal(signal.SIGCONT)

    dave.start().join(link)

    dave.wait_for_peer("alice")


def test_a_whole_life_leaks_nothing(overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]

    for _ in range(2):
        with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
            pulse.first_answer()
            alice.wait_for_path("bob", "direct")
        alice.ctl("netcheck")
        alice.ctl("ping", "bob")
        alice.program.signal(signal.SIGUSR1)
        alice.wait_for_control()
        alice.ctl("leave")
        alice.wait_for(lambda s: s["state"] == "not joined" and not s["peers"], "not joined")
        alice.join(overlay.control.link())
        alice.wait_for_peer("bob")

    for node in overlay.nodes.values():
        ends(node)


# ---- membership ends in more ways than one -----------------------------------------------------

def test_leaving_wins_over_a_deleted_interface(overlay):
    alice = overlay.nodes["alice"]
    overlay.control.program.signal(signal.SIGSTOP)
    asked = ask(alice, "node.leave")
    alice.answers()

    alice.host.run(["ip", "link", "delete", "p2p0"])

    assert answer(asked)["result"]
    assert alice.status()["state"] == "not joined"
    overlay.control.program.signal(signal.SIGCONT)


def test_leave_without_control_is_done_at_once(overlay):
    alice = overlay.nodes["alice"]
    overlay.control.kill()
    alice.wait_for(lambda s: not s["control"]["connected"], "noticed")

    alice.ctl("leave", timeout=2)

    assert alice.status()["state"] == "not joined"


def test_who_was_removed_and_fails_to_join_is_still_removed(overlay):
    alice = overlay.nodes["alice"]
    overlay.control.admin("node", "remove", "alice")
    alice.wait_for(lambda s: s["state"] == "removed", "knows that it was removed")

    wrong = overlay.control.link().replace(f":{CONTROL_PORT}/", ":1/")
    assert alice.ctl("join", wrong, check=False).returncode != 0

    assert alice.status()["state"] == "removed"
    alice.ctl("leave")
    assert alice.status()["state"] == "not joined"


def test_the_map_of_a_former_network_is_forgotten(overlay, lab, build):
    alice = overlay.nodes["alice"]
    overlay.control.admin("node", "remove", "alice")
    alice.wait_for(lambda s: s["state"] == "removed", "knows that it was removed")
    assert alice.cached_peers() == {"bob", "relay"}

    other = Overlay.__new__(Overlay)  # only a control of another network
    other.control = type(overlay.control)(build, lab.host("control2", overlay.internet), "other").start()
    alice.join(other.control.link())

    alice.wait_for_control()
    assert alice.peers() == {}
    assert alice.cached_peers() == set()
    assert "peer=" not in alice.program.output().partition("member of other")[2]


def test_joining_twice_at_once(overlay):
    alice = overlay.nodes["alice"]
    alice.ctl("leave")
    first = ask(alice, "node.join", link=overlay.control.link())
    second = ask(alice, "node.join", link=overlay.control.link())

    answers = [answer(first), answer(second)]

    assert sum("result" in a for a in answers) == 1
    assert "under way" in json.dumps(answers) or "already" in json.dumps(answers)
    ends(alice)


def test_a_port_that_is_taken_is_told_to_who_joins_and_tried_again(overlay, lab, build):
    public = lab.host("public", overlay.internet)
    with public.socket(kind=socket.SOCK_STREAM) as taken:
        taken.bind((public.ip, 443))
        taken.listen()
        node = Node(build, public, public=True).start()
        done = node.ctl("join", overlay.control.link(), check=False)
        assert done.returncode != 0 and "443" in done.stderr and "joined" in done.stderr
        assert node.status()["state"] == "starting"
        node.ctl("leave")
        assert node.status()["state"] == "not joined"
    node.join(overlay.control.link())
    ends(node)
