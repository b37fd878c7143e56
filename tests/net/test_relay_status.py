"""p2pctl relay status: what the operator of a public node sees of it.

The topology is overlay.Overlay's; UDP is blocked at both homes, so that all traffic goes by the relay.
"""

import json
import re
import socket
import time

import pytest

from lab import wait_until
from overlay import Node, Overlay
from traffic import Echo, Pulse

SIZE = 512  # bytes of a datagram
ANSWERS = 50


@pytest.fixture
def overlay(lab, build):
    overlay = Overlay(lab, build)
    for router in overlay.routers.values():
        router.block_udp()
    return overlay.join()


def relay_status(node):
    """The local API's answer, with the clients by name and all counts as numbers."""
    status = numbers(node.rpc("relay.status"))
    status["clients"] = {client["name"]: client for client in status["clients"]}
    return status


def numbers(value):
    """The same with each decimal string (64 bits) as a number."""
    if isinstance(value, dict):
        return {key: numbers(v) for key, v in value.items()}
    if isinstance(value, list):
        return [numbers(v) for v in value]
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def counts(status):
    """Every count, by its way to it."""
    found = {(group, name): n for group in ("totals", "drops", "refused", "closed", "stun")
             for name, n in status[group].items()}
    for name, client in status["clients"].items():
        found |= {(name, key): n for key, n in client.items() if isinstance(n, int)}
    return found


def answered_since(pulse, moment):
    """What was sent since then and answered: both ways it went by the relay after that moment."""
    return [number for number in list(pulse.answered) if pulse.sent[number] >= moment]


def test_clients_are_listed_by_name_with_at_least_what_they_sent(overlay):
    alice, bob, relay = (overlay.nodes[n] for n in ("alice", "bob", "relay"))
    with Echo(bob.host), Pulse(alice.host, bob.ip, size=SIZE) as pulse:
        pulse.first_answer()
        before = relay_status(relay)
        moment = time.monotonic()
        wait_until(lambda: len(answered_since(pulse, moment)) >= ANSWERS, 10, f"{ANSWERS} answers")
        carried = len(answered_since(pulse, moment))
        after = relay_status(relay)

    assert {"alice", "bob"} <= set(after["clients"])
    for name, node in (("alice", alice), ("bob", bob)):
        then, now = before["clients"][name], after["clients"][name]
        assert now["node_key"] == node.identity()["node_key"]
        assert now["transport"] == "tls"
        assert now["remote"].startswith(overlay.routers[name].ip + ":")
        assert now["connected_ms"] > then["connected_ms"]
        assert now["packets_in"] - then["packets_in"] >= carried
        assert now["packets_out"] - then["packets_out"] >= carried
        assert now["bytes_in"] - then["bytes_in"] >= carried * SIZE
        assert now["bytes_out"] - then["bytes_out"] >= carried * SIZE
        assert now["dropped"] == 0
    for key, least in (("packets_in", 2 * carried), ("packets_out", 2 * carried),
                       ("bytes_in", 2 * carried * SIZE), ("bytes_out", 2 * carried * SIZE)):
        assert after["totals"][key] - before["totals"][key] >= least, key
    assert (after["tls_port"], after["stun_port"]) == (443, 3478)
    assert 0 < after["cpu_ms"] and before["uptime_ms"] < after["uptime_ms"]


def test_packets_for_whoever_is_not_there_are_counted_by_cause(overlay):
    alice, bob, relay = (overlay.nodes[n] for n in ("alice", "bob", "relay"))
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.first_answer()
        before = relay_status(relay)["drops"]["destination unknown"]
        bob.kill()
        wait_until(lambda: relay_status(relay)["drops"]["destination unknown"] > before, 10, "a drop is counted")

    assert "bob" not in relay_status(relay)["clients"]
    text = relay.ctl("relay", "status").stdout
    assert re.search(r"^dropped +destination unknown [1-9]", text, re.M), text


def test_a_stranger_is_refused_and_counted_by_cause(overlay):
    relay = overlay.relay
    before = relay_status(relay)["refused"]["no valid TLS"]

    with overlay.nodes["alice"].host.socket(kind=socket.SOCK_STREAM) as stranger:
        stranger.settimeout(5)
        stranger.connect((relay.host.ip, 443))
        stranger.sendall(b"hello\n")
        wait_until(lambda: relay_status(relay)["refused"]["no valid TLS"] == before + 1, 10,
                   "the refusal is counted")


def test_json_text_and_the_local_api_say_the_same(overlay):
    alice, bob, relay = (overlay.nodes[n] for n in ("alice", "bob", "relay"))
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.keeps_going(ANSWERS)
        before = relay_status(relay)
        printed = numbers(json.loads(relay.ctl("relay", "status", "--json").stdout))
        text = relay.ctl("relay", "status").stdout
        after = relay_status(relay)

    printed["clients"] = {client["name"]: client for client in printed["clients"]}
    assert set(printed) == set(before)
    assert set(counts(printed)) == set(counts(before)) == set(counts(after))
    for what, n in counts(printed).items():
        assert counts(before)[what] <= n <= counts(after)[what], what
    for name in ("alice", "bob"):
        row = re.search(rf"^{name} +tls +(\S+) .*? (\d+) +\S+ \w+ +(\d+) +\S+ \w+ +(\d+)$", text, re.M)
        assert row, text
        assert row[1] == printed["clients"][name]["remote"]
        for at, key in ((2, "packets_in"), (3, "packets_out"), (4, "dropped")):
            assert printed["clients"][name][key] <= int(row[at]) <= after["clients"][name][key], key


def test_watching_shows_rates_and_outlives_a_restart(overlay):
    alice, bob, relay = (overlay.nodes[n] for n in ("alice", "bob", "relay"))
    watch = relay.host.start([overlay.build.program("p2pctl"), "--socket", relay.socket_path, "relay", "status",
                              "--watch", "1"], name="watch")
    with Echo(bob.host), Pulse(alice.host, bob.ip):
        watch.wait_for_log(r"^now +[1-9]\d* packets/s in", 15)
        watch.wait_for_log(r"^alice +tls .* [1-9]\d*/s ", 15)

    relay.kill()
    watch.wait_for_log("no node answers at", 15)
    told = watch.output().count("running for")
    relay.start()
    wait_until(lambda: watch.output().count("running for") > told, 15, "it watches the new one")
    assert watch.running


def test_a_node_that_is_no_relay_says_what_makes_it_one(lab, build):
    internet = lab.network("internet")
    plain = Node(build, lab.host("plain", internet)).start()
    lonely = Node(build, lab.host("lonely", internet), public=True).start()

    done = plain.ctl("relay", "status", check=False)
    assert done.returncode == 1 and "'[public]'" in done.stderr and "p2pnode.conf" in done.stderr
    done = plain.ctl("relay", "status", "--watch", check=False)
    assert done.returncode == 1 and "'[public]'" in done.stderr
    done = lonely.ctl("relay", "status", "--json", check=False)
    assert done.returncode == 4 and "p2pctl join LINK" in done.stderr
    assert done.stdout == ""
