"""Load on WireGuard interfaces: flows that know what must arrive (tests/load), and what disturbs them.

Flows are made by tests/load/flows.c: TCP streams both ways, checked byte by byte, and numbered
datagrams, checked for order, repetition and damage.
"""

import json
import math
import random
import re
import signal
import statistics
import time
from pathlib import Path

from lab import LabError, wait_until
from wireguard import Interface, new_keys

PORT = 7000
# Freed memory stays with AddressSanitizer for a while: little of it, so that growth is ours.
SMALL_QUARANTINE = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99:quarantine_size_mb=1"}


def tool(build, name):
    path = build.folder / "tests" / "load" / name
    if not path.exists():
        raise LabError(f"{path} is not there: ninja -C {build.folder}")
    return path


def counters(interface):
    """What p2pwg tells about what came and what it dropped."""
    seen = len(interface.program.output())
    interface.program.signal(signal.SIGUSR1)
    return wait_until(lambda: re.search("datagrams .*; dropped: .*", interface.program.output()[seen:]), 5,
                      "counters")[0]


class Flows:
    """Flows between hosts for so many seconds; add() all of them, then begin(), then finish()."""

    def __init__(self, flows, hosts, seconds):
        self.flows, self.seconds, self.begun = flows, seconds, None
        self.servers = [host.start([flows, "serve", "::", PORT], name="flows-serve") for host in hosts]
        for server in self.servers:
            server.wait_for_log("ready")
        self.senders, self.count = [], 0
        self.wanted = []

    def add(self, source, ip, *flows):
        self.wanted.append((source, ip, 1000 * (len(self.wanted) + 1), flows))

    def begin(self):
        for source, ip, first, flows in self.wanted:
            self.senders.append(source.start(
                [self.flows, "send", ip, PORT, first, self.seconds, *flows], name=f"flows-{first}"))
        self.begun = time.monotonic()

    def passed(self):
        return time.monotonic() - self.begun

    def finish(self, now=False):
        """What was sent and what arrived, by flow, when all of them have ended."""
        for sender in self.senders:
            if now:
                sender.signal(signal.SIGTERM)
            sender.wait(200)
        sent, seen = {"tcp": {}, "udp": {}}, {"tcp": {}, "udp": {}, "strange": 0}
        for program, into in [(p, sent) for p in self.senders] + [(p, seen) for p in self.servers]:
            if program.running:
                program.stop(200)
            if program.process.returncode != 0:
                raise LabError(f"{program}: {program.tail()}")
            found = json.loads(program.output().splitlines()[-1])
            into["tcp"].update(found["tcp"])
            into["udp"].update(found["udp"])
            into["strange"] = into.get("strange", 0) + found.get("strange", 0)
        return Result(sent, seen, self.seconds)


class Result:
    def __init__(self, sent, seen, seconds):
        self.sent, self.seen, self.seconds = sent, seen, seconds

    def total(self, field, kind="udp"):
        return sum(flow[field] for flow in self.seen[kind].values())

    def check_streams(self):
        """Every byte of every stream, both ways."""
        assert self.sent["tcp"] and self.sent["tcp"].keys() == self.seen["tcp"].keys()
        for number, here in self.sent["tcp"].items():
            there = self.seen["tcp"][number]
            assert not (here["damaged"] or there["damaged"]), f"stream {number} is damaged"
            assert not (here["broken"] or there["broken"]), f"stream {number} broke"
            assert here["sent"] == there["received"] > 0, f"stream {number}: {here} {there}"
            assert there["sent"] == here["received"] > 0, f"stream {number}: {here} {there}"

    def check_datagrams(self, late=0, share=0.3):
        """Nothing damaged or double, none of them late but so many; of each flow so much arrives."""
        assert self.sent["udp"] and self.sent["udp"].keys() == self.seen["udp"].keys()
        for number, here in self.sent["udp"].items():
            there = self.seen["udp"][number]
            assert there["damaged"] == there["twice"] == 0, f"flow {number}: {there}"
            assert there["received"] >= share * here["sent"], f"flow {number}: {here} {there}"
        assert self.seen["strange"] == 0
        assert self.total("late") + self.total("too_old") <= late, f"out of order: {self.seen['udp']}"

    def __str__(self):
        mbit = sum(f["sent"] + f["received"] for f in self.sent["tcp"].values()) * 8e-6 / self.seconds
        stall = max(f["stall_ms"] for kind in (self.sent, self.seen) for f in kind["tcp"].values())
        sent = sum(f["sent"] for f in self.sent["udp"].values())
        received = self.total("received")
        return (f"{len(self.sent['tcp'])} streams, {mbit:.0f} Mbit/s in all, longest stall {stall} ms; "
                f"{len(self.sent['udp'])} datagram flows, {received} of {sent} arrived, "
                f"{self.total('late')} late, {self.total('twice')} double, "
                f"{self.total('damaged')} damaged")


class Order:
    """In what order the segments of TCP streams leave an interface and come to another: exact, where
    TCP's own count of reordered segments also tells of acknowledgements that got lost."""

    def __init__(self, tool, interfaces):
        self.tool, self.files = tool, {i: i.host.folder / "order" for i in interfaces}
        self.witnesses = [i.host.start([tool, "record", i.name, file], name="order")
                          for i, file in self.files.items()]
        for witness in self.witnesses:
            witness.wait_for_log("recording")

    def stop(self):
        """How many segments came after one that was sent later, and how many could be looked at."""
        for witness in self.witnesses:
            witness.stop(20)
            seen = json.loads(witness.output().splitlines()[-1])
            assert seen["missed"] <= seen["segments"] / 100, f"{witness}: {seen}"
        late = compared = 0
        for source, sent in self.files.items():
            for target, received in self.files.items():
                if source is not target:
                    found = json.loads(source.host.run([self.tool, "compare", sent, received], timeout=120).stdout)
                    late, compared = late + found["late"], compared + found["compared"]
        for file in self.files.values():
            file.unlink()
        return late, compared


class Soak:
    """Interface a with peers b and c, under everything at once.

        a ---+--- internet ---+--- b   moves to other addresses and ports
                              +--- c   is removed from a's peers and added again

    New sessions every 5 s, begun by both sides; strangers come and go as peers of a and b; packets
    are lost on the way.
    """

    REKEY, STRANGERS, MOVE, REMOVE = 5.0, 2.0, 6.0, 7.0
    N_STRANGERS = 40

    def __init__(self, lab, p2pwg, tools, lanes=None, share=1.0, say=print):
        """p2pwg: of which build; tools: what a name of tests/load becomes a path by; lanes: how many, None:
        what suits the machine; share: of the datagrams, for slow builds."""
        self.flows, self.wire_tool, self.order_tool = tools("flows"), tools("wire"), tools("order")
        self.share, self.say = share, say
        argv = [p2pwg, "--lanes", str(lanes)] if lanes else p2pwg
        self.internet = lab.network("internet")
        self.interfaces = []
        for number, name in enumerate("abc", 1):
            host = lab.host(name, self.internet)
            self.interfaces.append(Interface(
                host, argv, [f"10.9.0.{number}/24", f"fd09::{number}/64"], env=SMALL_QUARANTINE))
        self.a, self.b, self.c = self.interfaces
        self.random = random.Random(4)
        self.keys = [new_keys().public for _ in range(2 * self.N_STRANGERS)]
        self.strangers = 0
        self.handshakes = set()
        self.rss = {interface: [] for interface in self.interfaces}
        self.meet(self.a, self.b)
        self.meet(self.b, self.a)
        self.meet(self.a, self.c)
        self.meet(self.c, self.a)
        for interface in self.interfaces:
            interface.up()
        # On a busy machine the first handshake may come before the other has opened its socket.
        self.a.ping("10.9.0.2", timeout=15)
        self.a.ping("10.9.0.3", timeout=15)

    @staticmethod
    def meet(interface, other):
        number = other.ip.rpartition(".")[2]
        interface.add_peer(other, other.endpoint(), f"{other.ip}/32,fd09::{number}/128")

    # -- what disturbs --

    def rekey(self):
        for interface in self.a, self.b:
            interface.program.signal(signal.SIGUSR2)

    def rekey_there(self):
        self.b.program.signal(signal.SIGUSR2)

    def change_strangers(self):
        """Peers that are never heard of; among what is theirs is the network the real ones are in."""
        self.strangers += 1
        half = self.N_STRANGERS * (self.strangers % 2)
        for interface in self.a, self.b:
            arguments = []
            for at, key in enumerate(self.keys):
                arguments += ["peer", key]
                if half <= at < half + self.N_STRANGERS:
                    arguments += ["endpoint", f"198.51.100.{200 + at % 50}:9", "allowed-ips",
                                  f"10.9.0.0/{25 + at % 6},10.8.{at}.0/24,fd09::{at + 100:x}/128"]
                else:
                    arguments += ["remove"]
            interface.set(*arguments)

    def move(self):
        """b changes its address or its port, in turn."""
        if self.random.random() < 0.5:
            self.b.host.move("198.51.100.77" if self.b.host.ip != "198.51.100.77" else "198.51.100.2")
        else:
            self.b.port = 51820 + self.random.randrange(1000)
            self.b.set("listen-port", self.b.port)

    def remove(self):
        self.a.set("peer", self.c.keys.public, "remove")
        time.sleep(0.3)
        self.meet(self.a, self.c)

    def observe(self):
        self.handshakes.add(self.b.peer(self.a).handshake)
        for interface in self.interfaces:
            if not interface.program.running:
                raise LabError(f"{interface.program} ended\n{interface.program.tail()}")
            self.rss[interface].append(interface.program.rss_kib())

    def disturb(self, flows):
        """All of it, until the flows' time is over."""
        acts = [(self.rekey, self.REKEY), (self.rekey_there, 7.7), (self.change_strangers, self.STRANGERS),
                (self.move, self.MOVE), (self.remove, self.REMOVE), (self.observe, 1.0)]
        due = [(act, period, (1 + at) * period / len(acts)) for at, (act, period) in enumerate(acts)]
        while (now := flows.passed()) < flows.seconds:
            for at, (act, period, when) in enumerate(due):
                if now >= when:
                    act()
                    due[at] = (act, period, max(when + period, now))
            time.sleep(0.05)

    # -- the phases --

    def run_flows(self, seconds):
        a, b, c = (interface.host for interface in self.interfaces)
        flows = Flows(self.flows, [a, b, c], seconds)

        def datagrams(kind, rate, size):
            return f"{kind}:{max(20, int(rate * self.share))}:{size}"
        # Not more than a slow machine can do: datagrams do not give way to streams.
        mixed = [datagrams("udp", 300, 0), datagrams("udp", 300, 1200), datagrams("uso", 2000, 1000),
                 datagrams("udp", 600, 64)]
        few = datagrams("udp", 200, 0)
        flows.add(a, "10.9.0.2", "tcp", "tcp", *mixed)
        flows.add(b, "10.9.0.1", "tcp", *mixed)
        flows.add(a, "fd09::2", "tcp", few, datagrams("uso", 1000, 1372))
        flows.add(a, "10.9.0.3", "tcp", few)
        flows.add(c, "10.9.0.1", few, datagrams("uso", 1000, 1000))
        order = Order(self.order_tool, self.interfaces)
        flows.begin()
        self.handshakes.clear()
        self.disturb(flows)
        result = flows.finish()
        result.late_segments, result.segments = order.stop()
        self.say(f"{result}; {result.late_segments} of {result.segments} segments out of order; "
                 f"{len(self.handshakes)} sessions of b with a seen")
        for interface in self.interfaces:
            self.say(f"{interface.host}: {counters(interface)}")
        result.check_streams()
        assert result.segments * 1000 > sum(f["received"] for f in result.seen["tcp"].values()) / 4
        assert len(self.handshakes) >= seconds / self.REKEY * 0.6, "sessions are not renewed"
        return result

    def calm(self, seconds):
        """The network loses packets, but keeps their order: so must we."""
        self.internet.loss(0.5)
        for part in self.parts(seconds):
            result = self.run_flows(part)
            result.check_datagrams(late=0)
            assert result.late_segments == 0, f"{result.late_segments} of {result.segments} segments out of order"
        self.internet.loss(0)

    def parts(self, seconds):
        """Of a minute at most: so long, what the witnesses write down stays small."""
        n = math.ceil(seconds / 60)
        return [(seconds + at) // n for at in range(n)]

    def confused(self, seconds):
        """The network mixes packets up: nothing is late that was not held back there."""
        wire = self.b.host.wire(self.wire_tool, 20, 30)
        results = [self.run_flows(part) for part in self.parts(seconds)]
        wire.stop()
        carried = json.loads(wire.output().splitlines()[-1])
        self.say(f"the network held back {carried['late']} of {carried['frames']} frames")
        assert carried["late"] > 100
        for result in results:
            assert result.total("late") > 0 and result.late_segments > 0
            result.check_datagrams(late=carried["late"])

    def check_memory(self):
        for interface, samples in self.rss.items():
            third = len(samples) // 3
            before, after = (statistics.median(part) for part in (samples[third:2 * third], samples[-third:]))
            self.say(f"{interface.host}: {before / 1024:.1f} MiB in the middle, {after / 1024:.1f} MiB at the end")
            assert after <= before * 1.05 + 1024, f"{interface.host} grows: {samples}"

    def end(self):
        for interface in self.interfaces:
            code = interface.program.stop(20)
            assert code == 0, f"{interface.program}: {code}\n{interface.program.tail()}"
