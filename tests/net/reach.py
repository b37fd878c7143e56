"""Which pairs of NATs become direct, how fast, and that the others talk nevertheless: one run of the matrix.

    with Lab("reach") as lab:
        nets = Pairs(lab, build).join()
        results = measure(nets.pairs)
        nets.forget()                    # everything anew, for the next run
        results += measure(nets.pairs)

What is honest about it: each pair is measured from its first traffic, and nothing that was there before
helps it.
 - Each member has a NAT of its own with a public address of its own, and no two members meet twice in a
   run. A NAT keeps a filter open, and a mapping in use, towards an address that was asked; so what other
   pairs have opened leads to other addresses.
 - What all pairs share is what any two nodes have that were started some seconds ago: their connection
   to control and to the relays, what STUN told them, and what they found their NAT to do. Members are idle
   until their pair's turn.
 - Pairs that are measured at the same time have no member in common.
 - Between two runs all members are killed, all NATs forget, and the members come back with new session
   keys and other mappings.
"""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from lab import LabError, USERSPACE_NAT_TYPES, wait_until
from overlay import Control, Node
from traffic import Echo, Pulse

TYPES = USERSPACE_NAT_TYPES
DIRECT_WAIT = 20.0  # seconds after which a pair that could be direct has failed
RELAY_WATCH = 5.0   # so long a pair is watched that cannot be
SEARCH_BOUND = 5.0  # within which a search is to have found a way
SEARCH_SHARE = 0.98  # … in so many of all; chance alone finds 98.3 %
P50, P95 = 0.5, 2.0  # what is promised of the time to direct, over all pairs that need no search
PORT = 8            # to which those talk that are measured; those that are watched meanwhile: ECHO_PORT
TOGETHER = 3        # so many pairs are measured at the same time

DIRECT, SEARCHED, RELAYED = "direct", "searched", "relay"  # what is expected of a pair


def can_be_direct(a, b):
    """The one expectation. NATs in RFC 4787's words, None: a public address."""
    def is_independent(nat):
        return nat is None or nat.startswith("eim-")

    def is_easy(nat):  # lets in whoever comes from the other side's address
        return nat is None or nat.endswith("-eif") or nat == "eim-adf"
    return is_easy(a) or is_easy(b) or (is_independent(a) and is_independent(b))


def can_be_found(a, b):
    """Is a port searched for? One side's is another for each remote, the other side lets in whom it asked there alone."""
    def is_hard(nat):
        return nat is not None and not nat.startswith("eim-") and not nat.endswith("-eif")
    return (is_hard(a) and b == "eim-apdf") or (is_hard(b) and a == "eim-apdf")


def expectation(a, b):
    return DIRECT if can_be_direct(a, b) else SEARCHED if can_be_found(a, b) else RELAYED


def behind(carrier, home):
    """What two NATs in a row are to the world: of each property the worse."""
    mapping, filtering = zip(carrier.split("-"), home.split("-"))
    return (f"{max(mapping, key=['eim', 'adm', 'apdm'].index)}-"
            f"{max(filtering, key=['eif', 'adf', 'apdf'].index)}")


@dataclass
class Pair:
    group: str      # "pairs", "hairpin" …
    name: str       # what is special about it
    a: Node
    b: Node
    expected: str   # DIRECT, SEARCHED, RELAYED
    by_tls: Node = None  # who reaches the relay by TLS only


@dataclass
class Result:
    group: str
    name: str
    expected: str
    path: str            # what it became: direct, relay …
    first_byte: float    # seconds from the first datagram to the first answer
    direct: float = None  # … until both sides send directly alone

    @property
    def ok(self):
        if self.expected == SEARCHED:
            return self.path == DIRECT and self.direct is not None and self.direct <= SEARCH_BOUND
        return self.path == self.expected

    def as_dict(self):
        return dict(asdict(self), ok=self.ok)


# ---- layouts: who is behind what -------------------------------------------------------------------

def host_of(endpoint):
    return endpoint.rpartition(":")[0]


def knows_its_nat(status):
    """Of a measurement that lost packets a part is not known, until it is made again."""
    return status["nat_behaviour"]["mapping"] and status["nat_behaviour"]["filtering"]


class Layout:
    """Control, two public nodes, and members, who all join; then .pairs.

        control   relay-1   relay-2 (both STUN servers, too: what a NAT does is seen by two only)
           |         |         |
        ---+---------+---------+--- internet --- one or more routers to each member
    """

    def __init__(self, lab, build):
        self.lab, self.build = lab, build
        self.internet = lab.network("internet", "198.51.100.0/24")
        # Port 443, so that who may use no other can join.
        self.control = Control(build, lab.host("control", self.internet), port=443).start()
        self.relays = [Node(build, lab.host(f"relay-{i}", self.internet), public=True).start() for i in (1, 2)]
        self.members, self.routers, self.pairs = [], [], []
        self.public = {}  # the address others see a member come from
        self.silent = []  # members whose UDP does not pass
        self.draw()

    def draw(self):
        raise NotImplementedError

    def router(self, name, outside, nat, **options):
        seed = random.randrange(1 << 32)  # of its ports
        self.routers.append(self.lab.router(name, outside, nat=nat, seed=seed, **options))
        return self.routers[-1]

    def member(self, name, network, public=None):
        """A node that has not joined; public: the address others see it come from, if any."""
        node = Node(self.build, self.lab.host(name, network))
        self.members.append(node)
        self.public[node] = public or node.host.ip
        return node

    def pair(self, group, name, a, b, expected, by_tls=None):
        self.pairs.append(Pair(group, name, a, b, expected, by_tls))

    def join(self):
        for relay in self.relays:
            relay.join(self.control.link())
        self.start()
        for node in self.members:
            node.join(self.control.link())
        return self.wait_until_idle()

    def forget(self):
        """As if nobody had ever talked: members are started anew behind NATs without a mapping."""
        for node in self.members:
            node.kill()
        for router in self.routers:
            router.forget()
        self.start()
        return self.wait_until_idle()

    def start(self):
        for node in self.members:
            node.start()

    def wait_until_idle(self):
        """All are members, with a relay, know their NAT, and everybody's map has everybody's session and address of now."""
        for node in self.members:
            node.wait_for_control(30)
            node.wait_for_relay(timeout=30)
            if node in self.silent:
                self.wait_for_tls(node)
            else:
                self.wait_for_stun(node, self.public[node])
                node.wait_for(knows_its_nat, "knows its NAT", 60)
        wait_until(self.maps_agree, 60, "all maps are of one age", 0.2)
        return self

    @staticmethod
    def wait_for_stun(node, public):
        node.wait_for(lambda s: any(host_of(e["endpoint"]) == public for e in s["endpoints"]),
                      f"knows its public address {public}", 30)

    @staticmethod
    def wait_for_tls(node):
        wait_until(lambda: transports(node) == {"tls"}, 30, f"{node.name} has its relay by TLS")

    def maps_agree(self):
        maps = [json.loads((n.state / "map.json").read_text()) for n in self.members]
        sessions = {}
        for m in maps:
            for peer in m["peers"] + [m["self"]]:
                sessions.setdefault(peer["name"], set()).add(peer.get("session_key"))
        own = {node.name: self.public[node] for node in self.members if node not in self.silent}
        known = all(any(host_of(e) == own[p["name"]] for e in p["endpoints"])
                    for m in maps for p in m["peers"] if p["name"] in own)
        return (len({m["sequence"] for m in maps}) == 1 and all(len(keys) == 1 for keys in sessions.values())
                and known)


class Pairs(Layout):
    """Two members behind each of the nine types, each behind a router of its own, and a public one.

    A member -a and a member -b: each pair of types once, and no two members meet twice. The filters of the
    routers b lag behind their mappings, as those of real ones do: who is answered at once is not let in yet.
    """

    LAG_MS = 50

    def draw(self):
        public = self.member("public", self.internet)
        sides = {side: {nat: self.behind(nat, side) for nat in TYPES} for side in "ab"}
        for i, left in enumerate(TYPES):
            for right in TYPES[i:]:
                self.pair("pairs", f"{left} with {right}", sides["a"][left], sides["b"][right],
                          expectation(left, right))
            self.pair("one side public", left, sides["a"][left], public, expectation(left, None))

    def behind(self, nat, side):
        router = self.router(f"{side}-{nat}", self.internet, nat, lag_ms=self.LAG_MS if side == "b" else 0)
        return self.member(f"{nat}-{side}", router.inside, router.ip)


class Hairpins(Layout):
    """Two behind one NAT that do not see each other (a guest network), for each type; and without hairpin.

        internet --- router [NAT, hairpin] --- bridge with isolated ports --- two members

    What they send to each other's public address the router turns round, with its filter and, where the
    mapping depends on it, another port: as if there were two such routers. No search: it would be one's own.
    """

    def draw(self):
        for nat in TYPES:
            self.two(nat, f"{nat}, hairpin", expectation(nat, nat), hairpin="external")
        self.two("eim-eif", "eim-eif, no hairpin", RELAYED)

    def two(self, nat, name, expected, **options):
        short = name.replace(", ", "-").replace("no hairpin", "none").replace("hairpin", "h")
        router = self.router(short, self.internet, nat, **options)
        nodes = [self.member(f"{side}-{short}", router.inside, router.ip) for side in "ab"]
        for node in nodes:
            _, network, port = node.host.interfaces[0]
            network._commands([f"link set dev {port} type bridge_slave isolated on"])
        self.pair("behind one NAT", name, *nodes, expected)


class Searches(Layout):
    """More of those that are found by chance: APDM with EIM-APDF, several of each, no member in two pairs."""

    EACH = 3

    def draw(self):
        for number in range(self.EACH):
            for filtering in ("adf", "apdf"):
                easy = self.behind("eim-apdf", f"{number}e-{filtering}", lag_ms=Pairs.LAG_MS)
                hard = self.behind(f"apdm-{filtering}", f"{number}h-{filtering}")
                self.pair("pairs", f"eim-apdf with apdm-{filtering}", easy, hard, SEARCHED)

    def behind(self, nat, name, **options):
        router = self.router(f"r{name}", self.internet, nat, **options)
        return self.member(name, router.inside, router.ip)


class Shapes(Layout):
    """What is no matter of the type alone: one LAN, carriers, two NATs in a row, UDP that does not pass."""

    def draw(self):
        self.one_lan()
        self.two_homes("hairpin", DIRECT, hairpin="external")
        self.two_homes("no hairpin", RELAYED)
        self.others = {nat: self.simple(nat) for nat in ("eim-adf", "eim-apdf")}
        self.public_member = self.member("public", self.internet)
        for carrier, home in (("eim-apdf", "eim-apdf"), ("eim-eif", "apdm-apdf"), ("apdm-adf", "eim-eif")):
            self.two_nats(carrier, home)
        self.without_udp()

    def simple(self, nat):
        router = self.router(f"r-{nat}", self.internet, nat)
        return self.member(nat, router.inside, router.ip)

    def one_lan(self):
        office = self.router("office", self.internet, "apdm-apdf")
        nodes = [self.member(f"desk-{side}", office.inside, office.ip) for side in "ab"]
        self.pair("behind one NAT", "one LAN, apdm-apdf, no hairpin", *nodes, DIRECT)

    def two_homes(self, name, expected, **options):
        short = "ch" if options else "c"
        carrier = self.router(short, self.internet, "eim-apdf", **options)
        homes = [self.router(f"{short}-home-{side}", carrier.inside, "eim-apdf") for side in "ab"]
        nodes = [self.member(f"{short}-{side}", home.inside, carrier.ip) for home, side in zip(homes, "ab")]
        self.pair("two homes, one carrier", f"all eim-apdf, carrier with {name}", *nodes, expected)

    def two_nats(self, carrier, home):
        outer = self.router(f"d-{carrier}", self.internet, carrier)
        inner = self.router(f"d-{carrier}-h", outer.inside, home)
        node = self.member(f"double-{carrier}", inner.inside, outer.ip)
        whole = behind(carrier, home)
        for name, other in [*self.others.items(), ("public", self.public_member)]:
            nat = None if name == "public" else name
            self.pair("two NATs in a row", f"{home} behind {carrier} with {name}", node, other,
                      expectation(whole, nat))

    def without_udp(self):
        for name, cut in (("UDP blocked", "block_udp"), ("443 only", "block_all_but_443")):
            router = self.router(name.replace(" ", "-"), self.internet, "eim-eif")
            getattr(router, cut)()
            node = self.member(name.replace(" ", "-").lower() + "-node", router.inside, router.ip)
            self.silent.append(node)
            self.pair("UDP does not pass", f"{name} with eim-adf", node, self.others["eim-adf"], RELAYED, node)
        self.pair("UDP does not pass", "UDP blocked with 443 only", *self.silent, RELAYED, self.silent[0])


# ---- measuring --------------------------------------------------------------------------------------

def path(pair):
    """What both sides say: direct, relay, or something in between."""
    ways = {pair.a.peer(pair.b.name)["path"], pair.b.peer(pair.a.name)["path"]}
    return ways.pop() if len(ways) == 1 else "+".join(sorted(ways))


def is_direct(pair):
    return pair.a.peer(pair.b.name)["path"] == DIRECT and path(pair) == DIRECT


def becomes_direct(pair, begin, timeout):
    """Seconds from the beginning until both sides send directly alone; None: they do not."""
    try:
        wait_until(lambda: is_direct(pair), begin + timeout - time.monotonic(), "direct", 0.005)
    except LabError:
        return None
    return time.monotonic() - begin


def measure_direct(pair):
    """Nobody knows of a search that it will find no way any more: it has no longer than its bound, and some.

    When it is direct it goes on. Who has a doubt then, on a busy machine, has to be direct again within two seconds.
    """
    timeout = SEARCH_BOUND + 1 if pair.expected == SEARCHED else DIRECT_WAIT
    with Echo(pair.b.host, PORT), Pulse(pair.a.host, pair.b.ip, port=PORT) as pulse:
        first = pulse.first_answer(20)
        direct = becomes_direct(pair, pulse.begin, timeout)
        pulse.keeps_going(10)
        if direct:
            becomes_direct(pair, time.monotonic(), 2)
        return Result(pair.group, pair.name, pair.expected, path(pair), first, direct)


def together(do, things):
    """do(thing) of all at the same time; the results."""
    with ThreadPoolExecutor(max(1, len(things))) as pool:
        return list(pool.map(do, things))


def measure_relayed(pairs, meanwhile=lambda: None):
    """One after the other begins; all are watched while they go on talking, and meanwhile() does something else."""
    echos = [Echo(host) for host in {pair.b.host for pair in pairs}]
    talks = []
    try:
        for pair in pairs:
            pulse = Pulse(pair.a.host, pair.b.ip, interval=0.1)
            talks.append((pair, pulse, pulse.first_answer(20)))
        until = time.monotonic() + RELAY_WATCH
        meanwhile()
        time.sleep(max(0.0, until - time.monotonic()))
        together(lambda talk: talk[1].keeps_going(5), talks)
        return [Result(pair.group, pair.name, pair.expected, relayed(pair), first) for pair, _, first in talks]
    finally:
        together(lambda end: end.close(), echos + [pulse for _, pulse, _ in talks])


def transports(node):
    """Those of the relays it is connected to."""
    return {r["transport"] for r in node.status()["relays"] if r["connected"]}


def relayed(pair):
    """The path; "relay by udp" where it had to be TLS."""
    ways = transports(pair.by_tls) if pair.by_tls else {"tls"}
    return path(pair) if ways == {"tls"} else f"{path(pair)} by {'+'.join(sorted(ways))}"


def rounds(pairs, most=TOGETHER):
    """The same pairs in groups of so many at most, no member twice in a group."""
    groups = []
    for pair in pairs:
        for group in groups:
            if len(group) < most and not any({pair.a, pair.b} & {other.a, other.b} for other in group):
                group.append(pair)
                break
        else:
            groups.append([pair])
    return groups


def measure(pairs, progress=lambda result: None):
    """A Result for each pair, in their order: first those that can be direct, a few at a time; then the others."""
    results = {}

    def note(pair, result):
        results[id(pair)] = result
        progress(result)

    def each(expected):
        for group in rounds([pair for pair in pairs if pair.expected == expected]):
            for pair, result in zip(group, together(measure_direct, group)):
                note(pair, result)
    each(DIRECT)
    rest = [pair for pair in pairs if pair.expected == RELAYED]
    for pair, result in zip(rest, measure_relayed(rest, lambda: each(SEARCHED))):
        note(pair, result)
    return [results[id(pair)] for pair in pairs]


# ---- what is promised -------------------------------------------------------------------------------

def searched_well(results):
    """Each search finds a way with 98.3 %; so 98 % of a hundred, and of fewer one less than that."""
    searched = [r for r in results if r.expected == SEARCHED]
    missed = sum(not r.ok for r in searched)
    return missed <= max(1, len(searched) * (1 - SEARCH_SHARE))


def direct_times(results):
    """Of those that needed no search."""
    return [r.direct for r in results if r.expected == DIRECT and r.direct]


def percentile(values, share):
    """The smallest value that so many of them do not exceed; None of none."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)] if ordered else None
