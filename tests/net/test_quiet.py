"""An idle node is quiet: with 50 idle peers it sends less than 1 MB a day, and nothing to any of them.

    control   relay-1  relay-2   peer-1 … peer-50       +--- home [eim-apdf] --- alice
       |         |        |         |  …  |             |
    ---+---------+--------+---------+-----+--- internet +--- office [no UDP] --- carol

What leaves their interfaces is counted for some minutes, by destination, with all headers down to IP. Their peers
are members, connected to control, and idle as they are.
"""

import json
import re
import time

import pytest

from lab import wait_until
from overlay import Control, Node, Overlay

PEERS = 50
WINDOW = 119.0  # seconds: four rounds of the slowest keep-alives (30 s) fit in, wherever it begins; five never
SETTLE = 20.0   # what a start takes is no day's business
A_DAY = 1_000_000
# Who is not answered by UDP asks ever more seldom (test_endpoint_fsm, test_relay_udp_fsm): after a quarter of an hour
# each of two relays' STUN servers once and the home three times in 4 minutes, of 128 and 92 bytes.
UNANSWERED_A_DAY = 360 * (2 * 128 + 3 * 92)
ETHERNET = 14  # bytes that a counter at the interface has besides

COUNT = """table netdev quiet {
set sent { typeof ip daddr . ip protocol . th dport; flags dynamic; counter; }
set sent6 { typeof ip6 daddr; flags dynamic; counter; }
chain out { type filter hook egress device eth0 priority 0;
meta protocol ip meta l4proto { tcp, udp } update @sent { ip daddr . ip protocol . th dport }
meta protocol ip6 update @sent6 { ip6 daddr }
}
}
"""


def sent(host):
    """Packets and bytes so far, by "address . protocol . port"."""
    text = host.run(["nft", "list", "table", "netdev", "quiet"]).stdout
    return {m[1].strip(): (int(m[2]), int(m[3]))
            for m in re.finditer(r"([0-9a-f.:]+(?: \. \S+)*) counter packets (\d+) bytes (\d+)", text)}


def members(lab, build):
    internet = lab.network()
    control = Control(build, lab.host("control", internet)).start()
    relays = [Node(build, lab.host(f"{i}-relay", internet), public=True).start() for i in (1, 2)]
    home, office = lab.router("home", internet, nat="eim-apdf"), lab.router("office", internet, nat="symmetric")
    office.block_udp()
    alice = Node(build, lab.host("alice", home.inside)).start()
    carol = Node(build, lab.host("carol", office.inside)).start()
    peers = [Node(build, lab.host(f"{i}-peer", internet)).start() for i in range(PEERS)]
    link = control.link("--reusable")
    for node in (*relays, alice, carol, *peers):
        node.rpc("node.join", {"link": link})
    return {"udp": alice, "tls": carol}, peers


def has_home(node, transport):
    return any(r["home"] and r["transport"] == transport for r in node.status()["relays"])


def has_measured(node):
    """Who has no UDP is with each relay for a minute, to know how far it is: so it begins, and hardly ever again."""
    return all(r["home"] == r["connected"] for r in node.status()["relays"])


@pytest.mark.slow
def test_an_idle_node_with_50_idle_peers_sends_less_than_1_mb_a_day(lab, build, request):
    """Be it with a relay by UDP or, where there is none, by TLS."""
    idle, peers = members(lab, build)
    for transport, node in idle.items():
        node.wait_for(lambda s: sum(p["online"] for p in s["peers"]) == PEERS + 3, "all are online", 60)
        wait_until(lambda: has_home(node, transport), 30, f"{node.host.name} has a relay by {transport}")
        node.host.nft(COUNT)
    time.sleep(SETTLE)
    for transport, node in idle.items():
        wait_until(lambda: has_measured(node), 120, f"{node.host.name} has its home alone")
    before, begin = {k: sent(node.host) for k, node in idle.items()}, time.monotonic()
    time.sleep(WINDOW)
    took, after = time.monotonic() - begin, {k: sent(node.host) for k, node in idle.items()}

    for transport, node in idle.items():
        total = 0
        for target, (packets, size) in sorted(after[transport].items()):
            first = before[transport].get(target, (0, 0))
            packets, size = packets - first[0], size - first[1]
            a_day = (size - ETHERNET * packets) * 86400 / took
            is_question = transport == "tls" and re.search(r"udp \. 347[89]$", target)
            if not is_question:
                total += a_day
            request.node.user_properties.append(
                ("measured", f"idle, relay by {transport}, to {target}: {packets} packets in {took:.0f} s,"
                             f" {a_day / 1e6:.3f} Mbytes a day"))
        assert total > 0, "the relay is kept"
        assert not {t.partition(" ")[0] for t in after[transport]} & {p.host.ip for p in peers}, "nothing punches"
        assert "direct" not in {p["path"] for p in node.status()["peers"]}
        assert total < A_DAY - (UNANSWERED_A_DAY if transport == "tls" else 0), after[transport]


@pytest.mark.slow
def test_quiet_as_it_is_a_node_notices_soon_that_its_nat_has_forgotten_it(lab, build, measured):
    overlay = Overlay(lab, build, ("alice",)).join()
    alice, relay = overlay.nodes["alice"], overlay.relay
    wait_until(lambda: alice.status()["relays"][0]["transport"] == "udp", 30, "alice has her relay by UDP")

    overlay.routers["alice"].reboot("198.51.100.99")
    begin = time.monotonic()

    def is_told():
        peers = json.loads((relay.state / "map.json").read_text())["peers"]
        return any(e.startswith("198.51.100.99:") for p in peers if p["name"] == "alice" for e in p["endpoints"])
    wait_until(is_told, 60, "the others know her new address", 0.1)
    measured("idle, until the others know the new address", time.monotonic() - begin, 35)
