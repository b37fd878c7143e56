"""The threads that move packets: however many there are, flows stay whole and in order."""

import signal

import pytest

from lab import wait_until
from load import Flows, tool
from overlay import Overlay
from test_load import p2pwg_of
from traffic import Echo, Pulse
from wireguard import Interface


class Star:
    """a with three peers, all with many flows to a and back.

        a ---+--- internet ---+--- b, c, d
    """

    def __init__(self, lab, p2pwg, lanes):
        internet = lab.network("internet", v6="2001:db8::/64")
        program = [p2pwg, "--lanes", str(lanes)]
        self.interfaces = [Interface(lab.host(name, internet), program if name == "a" else p2pwg,
                                     [f"10.9.0.{i}/24", f"fd09::{i}/64"])
                           for i, name in enumerate("abcd", 1)]
        self.a, *self.others = self.interfaces
        for other in self.others:
            number = other.ip.rpartition(".")[2]
            self.a.add_peer(other, other.endpoint(), f"{other.ip}/32,fd09::{number}/128")
            other.add_peer(self.a, self.a.endpoint(v6=number == "3"), "10.9.0.1/32,fd09::1/128")
        for interface in self.interfaces:
            interface.up()
        for other in self.others:
            other.ping("10.9.0.1")

    def run(self, flows, seconds):
        run = Flows(flows, [i.host for i in self.interfaces], seconds)
        mixed = ["tcp", "tcp", "udp:500:0", "uso:2000:1000", "udp:1000:64"]
        for number, other in enumerate(self.others, 2):
            run.add(self.a.host, other.ip, *mixed)
            run.add(other.host, "fd09::1" if number == 3 else "10.9.0.1", *mixed)
        run.begin()
        return run.finish()

    def lanes(self):
        """What each lane of a says in the log: (role, packets from the interface, from the network)."""
        self.a.program.signal(signal.SIGUSR1)
        wait_until(lambda: "datagrams" in self.a.program.output().splitlines()[-1], 5, "the counters")
        lines = [line for line in self.a.program.output().splitlines() if " lane " in line]
        words = [line.partition(" lane ")[2].split() for line in lines]
        return [(w[1].strip("():"), int(w[5]), int(w[w.index("datagrams,") - 1])) for w in words]


@pytest.mark.parametrize("kind, lanes", [("sanitized", 1), ("sanitized", 2), ("sanitized", 4), ("threads", 4)])
def test_flows_of_several_peers_stay_whole_and_in_order(lab, build, kind, lanes):
    star = Star(lab, p2pwg_of(kind), lanes)

    result = star.run(tool(build, "flows"), 4)

    print(result)
    result.check_streams()
    result.check_datagrams(late=0, share=0.05)  # whole and in order; how many is for the benchmarks
    told = star.lanes()
    assert [role for role, *_ in told] == {1: ["both"], 2: ["opens", "seals"], 4: ["both"] * 4}[lanes]
    sealing = sum(packets > 1000 for role, packets, _ in told)
    opening = sum(datagrams > 1000 for role, _, datagrams in told)
    assert sealing >= (1 if lanes < 4 else 3), told  # six addresses' flows: no queue is without any
    assert opening == (1 if lanes < 4 else 3), told  # a peer's sessions belong to one


def bob_and_carol(lab, build, lanes):
    """bob with so many lanes. Only a relay joins them: one NAT is symmetric, the other port-restricted."""
    overlay = Overlay(lab, build, ())
    for name in "bob", "carol":
        overlay.add(name)
    bob, carol = (overlay.nodes[name] for name in ("bob", "carol"))
    bob.program.stop()
    bob.config.write_text(bob.config.read_text() + f"lanes = {lanes}\n")
    bob.start()
    overlay.join()
    return bob, carol


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_what_a_relay_brings_over_udp_the_lanes_take_themselves(lab, build, lanes):
    bob, carol = bob_and_carol(lab, build, lanes)

    def relayed():
        return [int(lane["udp_relayed"]) for lane in bob.status()["lanes"]]

    with Echo(bob.host), Pulse(carol.host, bob.ip) as pulse:
        pulse.first_answer()
        wait_until(lambda: sum(relayed()), 15, "the relay over UDP is used")
        before = sum(relayed())
        pulse.keeps_going(50)
        wait_until(lambda: sum(relayed()) >= before + 50, 5, "all come over UDP")

    assert sum(n > 0 for n in relayed()) == 1  # a peer's sessions belong to one lane
    assert bob.peer("carol")["path"] == "relay"


@pytest.mark.parametrize("lanes, roles", [(1, ["both"]), (2, ["opens", "seals"])])
def test_a_node_tells_what_its_lanes_moved(lab, build, lanes, roles):
    """Also that it gave up no capability before the queues had been made."""
    bob, carol = bob_and_carol(lab, build, lanes)

    with Echo(bob.host), Pulse(carol.host, bob.ip) as pulse:
        pulse.first_answer()
        pulse.keeps_going(20)

    told = bob.status()["lanes"]
    assert [lane["role"] for lane in told] == roles
    assert sum(int(lane["tun_packets"]) for lane in told) >= 20
    queues = bob.host.run(["sh", "-c", "ls -d /sys/class/net/p2p0/queues/tx-* | wc -l"]).stdout
    assert int(queues) == 16


def test_a_number_of_lanes_that_cannot_be_is_refused(lab, build):
    host = lab.host("a", lab.network("internet"))
    for wrong in "0", "17", "many", "":
        done = host.run([build.program("p2pwg"), "-f", "--lanes", wrong, "wg0"], check=False)
        assert done.returncode == 2 and "1 to 16" in done.stderr, (wrong, done)
