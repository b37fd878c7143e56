"""TCP 443 of a public node serves all that is the node's own: its relay, webgw's agents, and hosts of others beside them.

      control    relay (public node: relay, front door and webgw on 443)    outside: visitors    agents [443 out, and nothing else]
         |          |                                                          |                  |
      ---+----------+------------------ internet 198.51.100.0/24 --------------+------------------+---

tests/unit/frontdoor has the decision by name and ALPN; here p2pnode makes it.
"""

import hashlib
import socket
import ssl

import pytest

from lab import LabError, wait_until
from overlay import Overlay
from test_shared_port import first_flight
from test_webgw import (REQUEST, SECRET, accept, client_hello, drops, figure, listening, passes_through, read, start_agent,
                        visit, warm_now)
from webgw import TlsAgent

ONLY_443 = """
table inet corporate {
chain out {
type filter hook output priority 0; policy drop;
oif "lo" accept
tcp dport 443 accept
}
}
"""
HTTP_1 = ["http/1.1"]


@pytest.fixture
def town(lab, build):
    """As drawn; no option says anything of 443."""
    overlay = Overlay(lab, build, members=())
    relay = overlay.relay
    relay.config.write_text(relay.config.read_text() + f"""metrics = 127.0.0.1:9100

[frontdoor]
host = door.example.com 127.0.0.1:1

[webgw]
host = www.example.com {hashlib.sha256(SECRET).hexdigest()}
""")
    relay.kill()
    relay.start()
    overlay.join()
    overlay.outside = lab.host("outside", overlay.internet)
    overlay.agents = lab.host("agents", overlay.internet)
    return overlay


class OwnName(TlsAgent):
    """An agent that is not ours, at 443, by the node's own name (None: by its address) and HTTP/1.1."""

    def __init__(self, town, name="relay", alpn=HTTP_1, host=None, ip=None):
        self.name, self.alpn = name, alpn
        super().__init__(host or town.agents, ip or town.relay.host.ip, port=443)

    def secured(self, connected):
        self.context.set_alpn_protocols(self.alpn)
        return self.context.wrap_socket(connected, server_hostname=self.name, suppress_ragged_eofs=False)


@pytest.mark.parametrize("warm, name", [(0, None), (2, "gate.example.org"), (0, "gate.example.org")])
def test_an_agent_of_ours_serves_its_visitors_with_443_outgoing_alone(town, warm, name):
    """By its address, or a name that is not the one in the network: ALPN says what it wants."""
    town.agents.nft(ONLY_443)
    start_agent(town, f"warm = {warm}\n", port=443, name=name)
    target = listening(town)
    if warm:
        wait_until(lambda: warm_now(town) == warm, 15, "that they are warm")
    for first, port in ((REQUEST, 80), (client_hello(), 443)):
        assert passes_through(visit(town, first, port), accept(target), first)
    assert figure(town.relay.host, "raw_visitors_total") == 1  # who speaks TLS is not wrapped twice, here either
    assert drops(town, "front door: all places taken") == 0


def test_who_asks_by_the_nodes_own_name_and_http_1_1_has_the_websocket(town):
    for name, alpn in (("relay", HTTP_1), ("relay", ["h2", "http/1.1"]), (None, HTTP_1)):
        agent = OwnName(town, name, alpn)
        assert agent.socket.selected_alpn_protocol() == "http/1.1"
        assert isinstance(agent.register("www.example.com", SECRET)["result"], int)
        visitor = visit(town, REQUEST)
        told = agent.next_visit()
        assert told["serverListeningPort"] == 443
        link = agent.link(443)
        link.say(b"\x01" + bytes.fromhex(told["secret"]))
        visitor.sendall(b"more")
        got = b""
        while len(got) < len(REQUEST) + 4:
            got += link.until_done(lambda: link.tls.read(65536))
        assert got == REQUEST + b"more"
        link.say(b"answer")
        assert read(visitor, 6) == b"answer"
        visitor.close()
        agent.close()


def test_what_the_agents_limits_count_by_is_who_it_really_is(town):
    """Not the door: 64 of one source may be there that have not subscribed, and those of others are not fewer for it."""
    def made_room():
        return drops(town, "webgw: made room before it subscribed")

    hello, silent = first_flight("relay", "http/1.1"), []
    for _ in range(64):  # all of them before the time of the first is over, however busy the machine is
        end = town.agents.socket(kind=socket.SOCK_STREAM)
        end.settimeout(20)
        end.connect((town.relay.host.ip, 443))
        end.sendall(hello)
        silent.append(end)
    for end in silent:
        assert end.recv(1), "webgw answers"
    others = OwnName(town, host=town.outside)
    assert made_room() == 0
    agent = OwnName(town)
    wait_until(lambda: made_room() == 1, 10, lambda: str(town.relay.status()["drops"]))
    assert is_over(silent[0])  # who has said nothing for longest
    for one in (agent, others):
        assert isinstance(one.register("www.example.com", SECRET)["result"], int)
    assert made_room() == 1


def is_over(end):
    try:
        while end.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_agents_come_back_by_443_when_the_node_has_restarted(town):
    node = start_agent(town, "warm = 1\n", port=443)
    target = listening(town)
    assert passes_through(visit(town, REQUEST), accept(target), REQUEST)
    town.relay.kill()
    town.relay.start()
    town.relay.wait_for_control()
    wait_until(lambda: node.status()["webgw_agent"]["hosts"][0]["warm"] == 1, 20, lambda: str(node.status()["webgw_agent"]))
    assert passes_through(visit(town, REQUEST), accept(target), REQUEST)


def test_agents_are_not_let_in_at_443_where_only_another_address_is_for_them(town):
    relay = town.relay
    relay.kill()
    relay.config.write_text(relay.config.read_text() + "tls_listen = 127.0.0.1:9081\n")
    relay.start()
    relay.wait_for_control()
    before = int(relay.rpc("relay.status")["refused"]["no valid TLS"])
    with pytest.raises((ssl.SSLError, LabError, OSError)):
        OwnName(town)
    wait_until(lambda: int(relay.rpc("relay.status")["refused"]["no valid TLS"]) == before + 1, 10, "it is the relay's to refuse")
