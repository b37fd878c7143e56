"""A visitor of a member costs one round trip to it, but the first: the front door has connections to the member ahead of visitors.
Who comes when such a connection is dead without a sign is led there all the same, and they end with what they are for.

The town is that of test_exposed.py; relay/frontdoor/door_warm.h has the rules, and its unit tests.
"""

import socket
import statistics
import time

import pytest

import test_exposed
from lab import wait_until
from test_exposed import expose

WAY_MS = 20
METRICS = "metrics = 127.0.0.1:9100\n"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
SERVER = """
import socket
server = socket.create_server(("127.0.0.1", {port}), backlog=64)
print("serving", flush=True)
while True:
    visitor, _ = server.accept()
    with visitor:
        {serve}
"""
HTTP = f"visitor.recv(65536) and visitor.sendall({PAGE!r})"
GREETS = "visitor.sendall(b'220 hello\\r\\n')"
ECHOES = "visitor.sendall(visitor.recv(100))"


@pytest.fixture
def town(lab, build):
    town = test_exposed.town.__wrapped__(lab, build)
    town.alice = town.nodes["alice"]
    relay = town.relay
    relay.config.write_text(relay.config.read_text().replace("[frontdoor]\n", METRICS + "[frontdoor]\n"))
    relay.kill()
    relay.start()
    relay.wait_for_control()
    serve(town, 8080, HTTP)
    return town


def serve(town, port, what):
    town.alice.host.start(["python3", "-c", SERVER.format(port=port, serve=what)], name=f"serve-{port}").wait_for_log("serving")


def waiting_at(node):
    """Connections to its acceptor."""
    port = test_exposed.acceptor_port(node)
    return len(node.host.run(["ss", "-Htn", "state", "established", f"sport = :{port}"]).stdout.splitlines())


def warm(town, name="door_warm"):
    """A counter of the front door's."""
    with town.relay.host.socket(kind=socket.SOCK_STREAM) as stream:
        stream.settimeout(10)
        stream.connect(("127.0.0.1", 9100))
        stream.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        text = b"".join(iter(lambda: stream.recv(65536), b"")).decode()
    found = [line for line in text.splitlines() if line.startswith(f'p2pnode_{name}{{door="front"}}')]
    return int(found[0].split()[-1]) if found else 0


def come(town, request=b"GET / HTTP/1.1\r\nHost: app.demo\r\n\r\n", port=80):
    """What a visitor hears first, and how long after it is connected; None: it was reset."""
    with town.outside.socket(kind=socket.SOCK_STREAM) as visitor:
        visitor.settimeout(20)
        visitor.connect((town.relay.host.ip, port))
        began = time.monotonic()
        try:
            if request:
                visitor.sendall(request)
            heard = visitor.recv(100)
        except ConnectionResetError:
            return None, 0
        return heard, (time.monotonic() - began) * 1000


def open_up(town):
    expose(town)
    wait_until(lambda: come(town)[0] == PAGE, 10, "visitors are led to alice")
    wait_until(lambda: warm(town) >= 2, 10, "two are warm")


def wait_for_page(town, request):
    """At the first attempt: nobody is lost."""
    assert come(town, request)[0] == PAGE


@pytest.mark.alone
def test_all_visitors_but_the_first_wait_for_one_round_trip(town):
    open_up(town)
    town.alice.host.delay(WAY_MS)
    wait_until(lambda: come(town)[1] > 2 * WAY_MS, 10, "alice is far away")
    took = []
    for _ in range(9):
        wait_until(lambda: warm(town) >= 2, 10, "two are warm")
        used = warm(town, "door_warm_used_total")
        took.append(come(town)[1])
        assert warm(town, "door_warm_used_total") == used + 1
    assert 2 * WAY_MS <= statistics.median(took) < 2 * WAY_MS + 12, took
    # What may do something twice is never said to a connection that may be dead, and takes two.
    post = [come(town, b"POST / HTTP/1.1\r\nHost: app.demo\r\nContent-Length: 0\r\n\r\n")[1] for _ in range(3)]
    assert min(post) >= 4 * WAY_MS, post
    assert warm(town, "door_warm_dead_total") == warm(town, "door_tried_another_total") == 0


def test_a_member_that_was_started_again_loses_no_visitor(town):
    open_up(town)
    for request in (b"GET / HTTP/1.1\r\nHost: app.demo\r\n\r\n",
                    b"POST / HTTP/1.1\r\nHost: app.demo\r\nContent-Length: 0\r\n\r\n"):
        wait_until(lambda: warm(town) >= 2, 20, "two are warm")
        town.alice.kill()  # as a machine that loses its power: its door can tell nobody
        town.alice.start()
        town.alice.wait_for_control()
        wait_until(lambda: test_exposed.exposure(town)["state"] == "live", 20, "published again")
        wait_for_page(town, request)
        wait_for_page(town, request)
        wait_for_page(town, b"GET / HTTP/1.1\r\nHost: app.demo\r\n\r\n")
    assert warm(town, "door_tried_another_total") == 0
    # By a visitor, or by what her kernel still had to say of them.
    assert warm(town, "door_warm_dead_total") + warm(town, "door_warm_ended_total") > 0
    wait_until(lambda: come(town)[0] == PAGE and warm(town) >= 2, 20, "warm again")
    assert town.relay.program.running


def be_forgotten(town):
    """Alice's end of what is warm is gone without a sign: nor does her kernel say a word of it any more."""
    wait_until(lambda: warm(town) >= 2, 20, "two are warm")
    ended = warm(town, "door_warm_ended_total")
    ends = ["ss", "-Htn", "state", "connected", "exclude", "time-wait", f"src {town.alice.ip}"]
    town.alice.kill()
    wait_until(lambda: not town.alice.host.run(ends).stdout, 20, "her kernel has given them up")
    town.alice.start()
    town.alice.wait_for_control()
    wait_until(lambda: all(one["state"] == "live" for one in town.alice.rpc("node.exposures")["exposures"]), 20, "published again")
    assert warm(town) >= 2 and warm(town, "door_warm_ended_total") == ended


def test_who_is_led_by_a_dead_connection_is_led_afresh_at_once_also_when_it_says_more(town):
    open_port(town, 2223, ECHOES)
    open_up(town)
    town.alice.host.run(["sysctl", "-qw", "net.ipv4.tcp_orphan_retries=1"])
    for n_dead, (request, port, answer) in enumerate((
            (b"GET / HTTP/1.1\r\nHost: app.demo\r\n\r\n", 80, PAGE),
            (b"abc", 2223, b"abc")), 1):
        be_forgotten(town)
        heard, took = come(town, request, port)
        assert heard == answer and took < 1000, took
        assert warm(town, "door_warm_dead_total") == n_dead
    assert warm(town, "door_tried_another_total") == 0


def open_port(town, port, what):
    relay = town.relay
    relay.config.write_text(relay.config.read_text().replace("listen = 80\n", f"listen = 80\ntcp_ports = {port}\n"))
    relay.kill()
    relay.start()
    relay.wait_for_control()
    serve(town, port, what)
    town.control.admin("port", "add", "alice", f"tcp:{port}")
    town.alice.ctl("expose", "tcp", f":{port}", str(port))
    wait_until(lambda: is_heard(town, port, b"abc"), 20, "it is open")


def test_ports_have_warm_connections_too_whoever_speaks_first(town):
    relay = town.relay
    relay.config.write_text(relay.config.read_text().replace("listen = 80\n", "listen = 80\ntcp_ports = 2222, 2223\n"))
    relay.kill()
    relay.start()
    relay.wait_for_control()
    for port, what in ((2222, GREETS), (2223, ECHOES)):
        serve(town, port, what)
        town.control.admin("port", "add", "alice", f"tcp:{port}")
        town.alice.ctl("expose", "tcp", f":{port}", str(port))
    wait_until(lambda: is_heard(town, 2222, b"") and is_heard(town, 2223, b"abc"), 20, "both are open")
    for port, said in ((2222, b""), (2223, b"abc")):
        wait_until(lambda: warm(town) >= 2, 10, "warm")
        used = warm(town, "door_warm_used_total")
        assert is_heard(town, port, said)
        assert warm(town, "door_warm_used_total") == used + 1
    assert warm(town, "door_warm_dead_total") == 0


def is_heard(town, port, said):
    try:
        return come(town, said, port)[0] == (said or b"220 hello\r\n")
    except ConnectionRefusedError:
        return False


def test_warm_connections_end_with_the_exposure_and_with_the_door(town):
    open_up(town)
    town.alice.ctl("unexpose", "app.demo")
    wait_until(lambda: warm(town) == 0, 10, "none is warm")
    wait_until(lambda: waiting_at(town.alice) == 0, 10, "nor waits at alice's")
    open_up(town)
    town.control.admin("host", "remove", "alice", "app.demo")
    wait_until(lambda: warm(town) == 0, 10, "the grant is gone")
    town.control.admin("host", "add", "alice", "app.demo")
    open_up(town)
    assert waiting_at(town.alice) >= 2
    town.relay.config.write_text(town.relay.config.read_text().replace("[frontdoor]\nlisten = 80\n", ""))
    town.relay.kill()
    town.relay.start()
    town.relay.wait_for_control()
    wait_until(lambda: waiting_at(town.alice) == 0, 70, "the door has ended")
