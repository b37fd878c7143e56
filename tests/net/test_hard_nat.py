"""Through a hard NAT to a peer behind a strict one: nobody knows a port, so one is searched for, politely.

    control   relay-1   relay-2 (public nodes)
       |         |         |
    ---+---------+---------+--- internet ---+---------------------------+
                                            |                           |
                              hard [apdm-adf, apdm-apdf]           easy [eim-apdf]
                                            |                           |
                                          alice                        bob
"""

import contextlib
import socket
import struct
import threading
import time

import pytest

from lab import LabError, wait_until
from test_netcheck import World
from traffic import Echo, Pulse

MAX_SOCKETS, MAX_PINGS = 256, 1024
IN_TIME = 5.5  # five seconds, and one look
PER_SECOND = 500
TICK = 10  # datagrams at once: a second may see one tick more than fits, at its ends
BLOCK, MARGIN = (20000, 22047), 2048  # where a hard NAT's ports are, and how far beside them is searched
OTHERS = 40  # mappings and sessions of all else: relays, control, STUN, what the NAT does


class Pair:
    def __init__(self, world, hard, easy, number="", **options):
        self.alice = world.behind(f"hard{number}", nat=hard, **options)
        self.bob = world.behind(f"easy{number}", nat=easy)
        self.routers = [node.host.interfaces[0][1].router for node in (self.alice, self.bob)]
        for node, other in ((self.alice, self.bob), (self.bob, self.alice)):
            node.wait_for_peer(other.name, timeout=15)
            node.wait_for_relay(timeout=15)
            node.wait_for(lambda s: s["nat_behaviour"]["age_ms"] is not None, "knows its NAT", 20)
        self.before = [router.counts() for router in self.routers]

    def made(self, what):
        """How many the routers of the hard and of the easy side made since."""
        return [router.counts()[what] - before[what] for router, before in zip(self.routers, self.before)]


def is_direct_in_time(pair, measured):
    with Echo(pair.bob.host), Pulse(pair.alice.host, pair.bob.ip) as pulse:
        try:
            took = pair.alice.wait_for_path(pair.bob.name, "direct", IN_TIME)
        except LabError:
            return False
        measured("time to direct, hard NAT", took, IN_TIME)
        pair.bob.wait_for_path(pair.alice.name, "direct", 2)
        pulse.keeps_going(20)
    return True


def test_a_hard_nat_and_a_strict_one_are_direct_within_five_seconds_and_the_routers_bear_it(lab, build, measured):
    """Two searches in a hundred find nothing, which test_hard_nat_fsm counts: then another pair is asked."""
    world = World(lab, build)
    for number in range(3):
        pair = Pair(world, "apdm-apdf", "eim-apdf", number)
        found = is_direct_in_time(pair, measured)
        assert pair.made("mappings_made")[0] <= MAX_SOCKETS + OTHERS
        assert pair.made("sessions_made")[1] <= MAX_PINGS + OTHERS
        if found:
            return
    raise AssertionError("three pairs in a row found no way")


def test_ports_in_steps_are_predicted(lab, build, measured):
    pair = Pair(World(lab, build), "apdm-apdf", "eim-apdf", ports="step:2")
    with Echo(pair.bob.host), Pulse(pair.alice.host, pair.bob.ip):
        measured("time to direct", pair.alice.wait_for_path(pair.bob.name, "direct", 8))

    assert pair.made("mappings_made")[0] <= 64 + OTHERS, "as few sockets as a prediction takes"


def test_two_hard_nats_are_never_searched(lab, build):
    pair = Pair(World(lab, build), "apdm-apdf", "apdm-apdf")
    with Echo(pair.bob.host), Pulse(pair.alice.host, pair.bob.ip) as pulse:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 5 and len(pulse.answered) > 100, 15, "talk by the relay")

    assert pair.alice.peer(pair.bob.name)["path"] == "relay"
    assert max(pair.made("mappings_made")) <= OTHERS + 20, "those of ordinary pings"


class Seen(threading.Thread):
    """What a host sends by UDP to an address: when, and to which port; as the kernel saw it leave."""

    TIMESTAMPNS, OUTGOING = 35, 4  # SO_TIMESTAMPNS, PACKET_OUTGOING

    def __init__(self, host, to):
        super().__init__(daemon=True)
        self.to, self.datagrams, self.stopping = socket.inet_aton(to), [], False
        self.socket = host.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, self.TIMESTAMPNS, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.settimeout(0.1)
        self.start()

    def run(self):
        while not self.stopping:
            with contextlib.suppress(TimeoutError):
                packet, notes, _, sender = self.socket.recvmsg(64, 64)
                if sender[2] != self.OUTGOING or packet[9] != socket.IPPROTO_UDP or packet[16:20] != self.to:
                    continue
                seconds, nanoseconds = struct.unpack("qq", notes[0][2])
                self.datagrams.append((seconds + nanoseconds / 1e9, struct.unpack("!H", packet[22:24])[0]))

    def ports(self):
        return {port for _, port in list(self.datagrams)}

    def most_in_a_second(self):
        times, first, most = sorted(at for at, _ in list(self.datagrams)), 0, 0
        for last, at in enumerate(times):
            while times[first] <= at - 1:
                first += 1
            most = max(most, last - first + 1)
        return most

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.join()
        self.socket.close()


def watched(pair):
    """What alice sends to the NAT of bob, and bob to that of alice."""
    return Seen(pair.alice.host, pair.routers[1].ip), Seen(pair.bob.host, pair.routers[0].ip)


def test_a_nat_with_a_block_of_ports_is_searched_in_that_block(lab, build, measured):
    pair = Pair(World(lab, build), "apdm-apdf", "eim-apdf", ports="random", port_range=BLOCK)
    alices, bobs = watched(pair)
    with alices, bobs:
        assert is_direct_in_time(pair, measured), "chance finds one of 64 in 2048 with 1024 tries nearly for sure"

    assert 64 <= pair.made("mappings_made")[0] <= 64 + OTHERS, "a block takes fewer sockets"
    assert len(bobs.ports()) <= MAX_PINGS + OTHERS
    assert BLOCK[0] - MARGIN <= min(bobs.ports()) and max(bobs.ports()) <= BLOCK[1] + MARGIN


@pytest.mark.slow
def test_a_search_sends_no_more_than_500_datagrams_a_second_and_is_made_once_for_each_network(lab, build):
    """
    Nothing gets from bob's NAT to alice's, so that the search is in vain; until alice's has another address.
    """
    pair = Pair(World(lab, build), "apdm-apdf", "eim-apdf")
    hard, easy = pair.routers
    easy.nft("table netdev cut { chain out { type filter hook egress device eth0 priority 0;\n"
             f"ip daddr {hard.ip} meta l4proto udp drop\n}}\n}}")
    alices, bobs = watched(pair)
    with alices, bobs:
        with Echo(pair.bob.host), Pulse(pair.alice.host, pair.bob.ip, interval=0.1) as pulse:
            wait_until(lambda: len(bobs.ports()) >= MAX_PINGS, 15, lambda: f"a whole search: {len(bobs.ports())}")
            pulse.keeps_going(60, 15)  # until both sides have given it up
        searched = len(bobs.ports())
        for seen in (alices, bobs):
            assert seen.most_in_a_second() <= PER_SECOND + TICK
        assert searched <= MAX_PINGS + OTHERS and pair.made("mappings_made")[0] <= MAX_SOCKETS + OTHERS

        made = pair.made("mappings_made")[0]
        with Echo(pair.bob.host), Pulse(pair.alice.host, pair.bob.ip) as pulse:
            pulse.keeps_going(600, 20)
        assert len(bobs.ports()) <= searched + 10, "the same networks: not once more"
        assert pair.made("mappings_made")[0] <= made + OTHERS

    hard.reboot("198.51.100.99")
    with Seen(pair.bob.host, hard.ip) as again:
        with Echo(pair.bob.host), Pulse(pair.alice.host, pair.bob.ip) as pulse:
            wait_until(lambda: len(again.ports()) > 50 or pair.alice.peer(pair.bob.name)["path"] == "direct", 60,
                       lambda: f"searched anew, or found at once: {len(again.ports())}")
            pulse.keeps_going(300)
        assert again.most_in_a_second() <= PER_SECOND + TICK + 100, "and the stream, once it is direct"
