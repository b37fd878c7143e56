"""What tests/bench/relay measures of packets that a relay carries.

Forwarding: the cases, the relays, and who is compared.

    asker ============ server
    bench_relay_load   p2pnode, coturn, derper: all at the same time, on ports of their own

A case is a kind of traffic through all relays of one group; its candidates are measured one after the other, so
that whatever disturbs the machine disturbs all of them: each as fast as it goes, and then each at one and the same
rate, half of what the slowest of them carries.

Overlays: TCP through two nodes, directly and through a relay.

    alice ============ bob          west ============ hub ============ east
                                             its p2pnode is the relay
"""

import base64
import json
import statistics
from collections import namedtuple

import tunnels
from tunnels import MTU, Control, LabError, Node, Tunnel, wait_until

SIZES, PAIRS = (64, 576, 1400), (1, 100)
MAX_CLIENTS = 2 * max(PAIRS)
COTURN_PORT, DERP_PORT, DERP_TLS_PORT, DERP_NAME = 3600, 3340, 3343, "derp.test"
TRAIN_BYTES, TRAIN_PACKETS = 65507, 44
UDP_WINDOW = 768  # packets of all pairs on the way, about
FRAMES, STREAM_WINDOW = 16, 32  # of one pair, written together and on the way: derper keeps no more
PLAIN, FLOOR = "derper-plain", "floor"
FLOOR_PORT = 3700
TLS_MAX_US = 4.0  # what a public node may take where there is no derper to compare with

Case = namedtuple("Case", "group pairs size")
Candidate = namedtuple("Candidate", "key title group transport port program options")
Group = namedtuple("Group", "key title peer target")
GROUPS = (
    Group("udp-trains", "UDP, trains", "coturn", 1 / 10),
    Group("udp-singles", "UDP, singly", "coturn", 1 / 2),
    Group("tls-trains", "TLS, many frames in a write", "derper", 1 / 8),
    Group("tls-singles", "TLS, each frame in a write", "derper", 1 / 8),
)
UDP_GROUPS = GROUPS[:2]
PACED = (("paced_rate", 0), ("paced_cpu", 3), ("paced_p50", 0), ("paced_p99", 0))
WHEN = (("cpu", "flooded"), ("paced_cpu", "at the same rate"))
NAMES = {"coturn": "coturn's", "derper": "derper's with TLS", PLAIN: "derper's without TLS", FLOOR: "the floor's"}


def cases(groups=None, sizes=SIZES, pairs=PAIRS):
    return [Case(g.key, p, s) for g in GROUPS if not groups or g.key in groups for p in pairs for s in sizes]


def shape(case):
    """Packets that leave together, and packets of one pair on the way at most."""
    if is_tls(case.group):
        return min(FRAMES, 16000 // case.size) if case.group == "tls-trains" else 1, STREAM_WINDOW
    train = min(TRAIN_PACKETS, TRAIN_BYTES // (case.size + 16)) if case.group == "udp-trains" else 1
    return train, max(train, UDP_WINDOW // case.pairs)


class Forwarding:
    def __init__(self, build, server, clients, say):
        self.load, self.server, self.clients, self.say = build.bench("bench_relay_load"), server, clients, say
        self.candidates, self.skipped, self.failed, self.values, self.alone = [], [], [], {}, {}
        self.rounds = {}  # (candidate, case, column): {round: value}
        self.ciphers = {}  # candidate over TLS: what its clients agreed on with it

    # ---- the relays

    def make_members(self, control):
        """Before control serves: the clients become members of its network."""
        self.control_folder = control.state
        self.server.run([self.load, "members", control.state, MAX_CLIENTS])

    def add_ours(self, node, stun_port, tls_port):
        identity = node.identity()["node_key"]
        for group in GROUPS:
            stream = is_tls(group.key)
            self.candidates.append(Candidate(
                "p2pnode", "**p2pnode**", group.key, "tls" if stream else "udp", tls_port if stream else stun_port,
                node.program, [f"folder={self.control_folder}" if stream else f"key={hex_of(identity)}"]))

    def add_floor(self, program):
        """The kernel's part: a forwarder that does nothing else (tests/bench/bench_relay_floor.c)."""
        servers = {kind: self.server.start([program, kind, self.server.ip, FLOOR_PORT], name=f"floor-{kind}")
                   for kind in ("udp", "tcp")}
        for group in GROUPS:
            title, kind, transport = ("plain TCP, nothing else", "tcp", "tcp") if is_tls(group.key) else \
                ("recvmmsg, sendmmsg, nothing else", "udp", "bare")
            self.candidates.append(Candidate(FLOOR, f"*{title}*", group.key, transport, FLOOR_PORT, servers[kind], []))

    def add_coturn(self):
        """As lean as it can be: no authentication, one relay thread, UDP only."""
        if not tunnels.is_installed("turnserver"):
            return self.skip("coturn: not installed (turnserver not on PATH)")
        argv = ["turnserver", "-n", "--no-auth", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--no-tcp-relay",
                "-m", "1", "--listening-ip", self.server.ip, "--relay-ip", self.server.ip,
                "--listening-port", COTURN_PORT, "--pidfile", self.server.folder / "turn.pid",
                "--userdb", self.server.folder / "turn.db", "--log-file", "stdout", "--simple-log"]
        program = self.server.start(argv, name="coturn-relay")
        for group in UDP_GROUPS:
            self.candidates.append(Candidate("coturn", "coturn", group.key, "turn", COTURN_PORT, program, []))
        return None

    def add_derper(self):
        """Twice: with TLS, as its clients use it, and without, as behind something that does TLS for it."""
        if not tunnels.is_installed("derper"):
            return self.skip("derper: not on PATH (go install tailscale.com/cmd/derper@latest)")
        folder = self.make_certificate()
        for key, title, transport, port, options in (
                ("derper", "derper (TLS)", "derp-tls", DERP_TLS_PORT,
                 ["-certmode", "manual", "-certdir", folder, "-hostname", DERP_NAME]),
                (PLAIN, "derper (plain TCP)", "derp", DERP_PORT, [])):
            argv = ["derper", "-a", f"{self.server.ip}:{port}", "-http-port", "-1", "-stun=false",
                    "-c", self.server.folder / f"derper-{port}.json", *options]
            program = self.server.start(argv, name=f"derper-{port}")
            wait_until(lambda p=port: tunnels._listens(self.server, p), 10, f"{title} listens")
            for group in GROUPS:
                if is_tls(group.key):
                    self.candidates.append(Candidate(key, title, group.key, transport, port, program, []))
        return None

    def make_certificate(self):
        """P-256, as p2pnode's."""
        folder = self.server.folder
        self.server.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                         "-days", "2", "-subj", f"/CN={DERP_NAME}", "-addext", f"subjectAltName=DNS:{DERP_NAME}",
                         "-keyout", folder / f"{DERP_NAME}.key", "-out", folder / f"{DERP_NAME}.crt"])
        return folder

    def skip(self, why):
        self.skipped.append(f"SKIPPED {why}")
        self.say(self.skipped[-1])

    def fail(self, line):
        self.failed.append(f"FAILED {line}")
        self.say(self.failed[-1])

    # ---- measuring

    def generate(self, transport, port, case, seconds, options):
        train, window = shape(case)
        done = self.clients.run([self.load, transport, self.server.ip, port, f"pairs={case.pairs}",
                                 f"size={case.size}", f"train={train}", f"window={window}", f"seconds={seconds}",
                                 *options], timeout=4 * seconds + 60)
        return json.loads(done.stdout)

    def measure_paced(self, candidate, case, seconds, rate):
        """At so many thousands of packets a second."""
        found = self.generate(candidate.transport, candidate.port, case, seconds,
                              [*candidate.options, f"pid={candidate.program.pid}", f"rate={1e3 * rate:.0f}"])["paced"]
        return {"paced_rate": found["received_in_time"] / found["seconds"] / 1e3,
                "paced_cpu": found["relay_cpu_ns"] / found["received"] / 1e3,
                **softirq("paced_softirq", found),
                "paced_p50": time_of(found["p50_us"]), "paced_p99": time_of(found["p99_us"]),
                "paced_lost": 1 - found["received"] / found["sent"]}

    def measure(self, candidate, case, seconds):
        found = self.generate(candidate.transport, candidate.port, case, seconds,
                              [*candidate.options, f"pid={candidate.program.pid}"])
        flood, half = found["flood"], found["half"]
        self.note_cipher(candidate, found.get("tls"))
        rate = flood["received_in_time"] / flood["seconds"]
        return {"rate": rate / 1e3, "gbits": rate * case.size * 8 / 1e9,
                "cpu": flood["relay_cpu_ns"] / flood["received"] / 1e3,
                "p50": time_of(half["p50_us"]), "p99": time_of(half["p99_us"]),
                "cpu_half": half["relay_cpu_ns"] / half["received"] / 1e3,
                **softirq("softirq", flood),
                "own": flood["own_cpu_ns"] / 1e9 / flood["seconds"],
                "relay_cores": flood["relay_cpu_ns"] / 1e9 / flood["seconds"],
                "lost": 1 - flood["received"] / flood["sent"], "lost_half": 1 - half["received"] / half["sent"]}

    def note_cipher(self, candidate, cipher):
        """What TLS costs is compared: it must be the same TLS."""
        if not cipher or candidate.key in self.ciphers:
            return
        self.ciphers[candidate.key] = cipher
        if len(set(self.ciphers.values())) > 1:
            self.fail("TLS differs: " + ", ".join(f"{key}: {c}" for key, c in self.ciphers.items()))

    def measure_alone(self, case, seconds):
        """What of the delay is the generator's own."""
        half = self.generate("none", 1, case, seconds, [])["half"]
        return {"p50": time_of(half["p50_us"]), "p99": time_of(half["p99_us"])}

    def run_round(self, number, some_cases, seconds):
        for case in some_cases:
            own = [c for c in self.candidates if c.group == case.group]
            begin = number % len(own) if own else 0
            own = own[begin:] + own[:begin]
            rates = [found["rate"] for candidate in own
                     for found in [self.attempt(number, candidate, case, self.measure, seconds)] if found]
            if len(rates) > 1:
                for candidate in own:
                    self.attempt(number, candidate, case, self.measure_paced, seconds, min(rates) / 2)
            if not is_tls(case.group):
                for column, value in self.measure_alone(case, min(seconds, 1)).items():
                    self.alone.setdefault(case, {}).setdefault(column, []).append(value)

    def attempt(self, number, candidate, case, measure, *words):
        """What was found, or None."""
        try:
            found = measure(candidate, case, *words)
        except (LabError, OSError, ValueError, ZeroDivisionError) as error:
            self.fail(f"{candidate.key}: {name_of(case)}: round {number + 1}: {error}")
            return None
        for column, value in found.items():
            self.values.setdefault((candidate.key, case), {}).setdefault(column, []).append(value)
            self.rounds.setdefault((candidate.key, case, column), {})[number] = value
        self.say(f"round {number + 1}: {name_of(case)}: {candidate.key}: "
                 + ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
        return found

    # ---- telling

    def median(self, key, case, column):
        values = self.values.get((key, case), {}).get(column)
        return statistics.median(values) if values else None

    def added(self, key, case, column):
        """Delay without what the generator needs when there is no relay."""
        value = self.median(key, case, column)
        alone = self.alone.get(case, {}).get(column)
        return value if value is None or not alone else max(0, value - statistics.median(alone))

    def ratios(self, group, peer, column, own="p2pnode"):
        """[(ours / peer's, case)] of CPU per packet: the median of the rounds' in which both were measured."""
        found = []
        for case in sorted({c for _, c in self.values if c.group == group.key}, key=str):
            ours, theirs = (self.rounds.get((key, case, column), {}) for key in (own, peer))
            ratios = [ours[number] / theirs[number] for number in ours.keys() & theirs.keys()]
            if ratios:
                found.append((statistics.median(ratios), case))
        return found

    def verdicts(self):
        told = []
        for group in GROUPS:
            for column, when in WHEN:
                for peer, target in ((group.peer, group.target), (PLAIN, None)):
                    ratios = self.ratios(group, peer, column) if target or is_tls(group.key) else []
                    if ratios:
                        told.append(verdict(f"{group.title}, {when}: CPU per packet, ours / {NAMES[peer]}", ratios,
                                            target))
                told += self.floor_verdicts(group, column, when)
            ours = [(value, case) for (key, case), columns in self.values.items() if key == "p2pnode"
                    and case.group == group.key for value in [statistics.median(columns["cpu"])]]
            if is_tls(group.key) and ours:
                told.append(verdict(f"{group.title}, {WHEN[0][1]}: µs of CPU per packet", ours, TLS_MAX_US))
        return told

    def floor_verdicts(self, group, column, when):
        """What remains to be gained, and what the target leaves for more than the kernel's part."""
        compared = ((ours, peer, self.ratios(group, peer, column, ours))
                    for ours, peer in (("p2pnode", FLOOR), (FLOOR, group.peer)))
        return [verdict(f"{group.title}, {when}: CPU per packet, {'ours' if ours != FLOOR else NAMES[FLOOR]}"
                        f" / {NAMES[peer]}", ratios, None) for ours, peer, ratios in compared if ratios]

    def print_table(self):
        print("\n| relay | traffic | pairs | bytes | packets/s, k | Gb/s | CPU of the relay, µs a packet |"
              " ksoftirqd, µs a packet | p50 µs | p99 µs | same rate, k | CPU at it | p50 µs at it | p99 µs at it |"
              " lost at it, % |\n|---|---|" + "--:|" * 13)
        titles = {g.key: g.title for g in GROUPS}
        for case in dict.fromkeys(c for _, c in self.values):
            for candidate in (c for c in self.candidates if c.group == case.group):
                cells = [self.median(candidate.key, case, c) for c in ("rate", "gbits", "cpu")]
                softirqs = text_of(self.median(candidate.key, case, "softirq"), 3)
                delays = [text_of(self.added(candidate.key, case, c)) for c in ("p50", "p99")]
                paced = [text_of(self.median(candidate.key, case, column), digits) for column, digits in PACED]
                lost = self.median(candidate.key, case, "paced_lost")
                if cells[0] is None:
                    continue
                print(f"| {candidate.title} | {titles[case.group]} | {case.pairs} | {case.size} | {cells[0]:.0f} |"
                      f" {cells[1]:.2f} | {cells[2]:.3f} | "
                      + " | ".join([softirqs, *delays, *paced, text_of(lost and 100 * lost, 2)]) + " |")

    def print_verdicts(self):
        for v in self.verdicts():
            print(f"{v['column']}, the worst case ({v['case']}): {v['value']:.3f}, median of all cases"
                  f" {v['median']:.3f}" + (f"; target ≤ {v['target']:.3f}:"
                                           f" {'PASS' if v['reached'] else 'NOT REACHED'}" if v["target"] else ""))

    def as_json(self):
        return {"values": [{"relay": key, **case._asdict(), **columns}
                           for (key, case), columns in self.values.items()],
                "alone": [{**case._asdict(), **columns} for case, columns in self.alone.items()],
                "tls": self.ciphers,
                "verdicts": self.verdicts()}


def softirq(column, found):
    """µs a packet, where the kernel's threads can be seen."""
    return {column: found["softirq_cpu_ns"] / found["received"] / 1e3} if "softirq_cpu_ns" in found else {}


def verdict(column, values, target):
    """The worst of (value, case) decides; target None: it is told, no more."""
    worst, case = max(values)
    return {"column": column, "case": name_of(case), "value": worst,
            "median": statistics.median(v for v, _ in values), "target": target,
            "reached": target is None or worst <= target}


class Relayed(Tunnel):
    """By the relay over UDP, or not at all."""

    def __init__(self, nodes, relay):
        super().__init__("overlay by the relay over UDP", [n.host for n in nodes], [n.ip for n in nodes],
                         [n.program for n in nodes], "p2p0")
        self.nodes, self.relay = nodes, relay

    def carried(self):
        """Packets that the relay took, over UDP and over TLS."""
        clients = self.relay.rpc("relay.status")["clients"]
        return [sum(int(c["packets_in"]) for c in clients if c["transport"] == name) for name in ("udp", "tls")]

    def wake(self):
        super().wake()

        def goes_by_udp():
            before = self.carried()
            super(Relayed, self).wake()
            return self.carried()[0] > before[0]
        wait_until(goes_by_udp, 15, "packets go by the relay over UDP")

    def confirm(self):
        west, east = self.nodes
        paths = west.peer("east")["path"], east.peer("west")["path"]
        if paths != ("relay", "relay"):
            raise LabError(f"{self.name}: has gone over to another path: {' and '.join(paths)}")


def relayed(lab, build):
    """west and east, each with a cable to the hub, which does not forward."""
    west, hub, east = (lab.host(name) for name in ("west", "hub", "east"))
    hub.cable(west)
    hub.cable(east, "203.0.113.0/24")
    east.run(["ip", "route", "add", f"{hub.ip}/32", "via", "203.0.113.1"])
    control = Control(build, hub).start()
    relay = Node(build, hub, public=True).start()
    nodes = [Node(build, host, config=f"mtu = {MTU}\n").start() for host in (west, east)]
    for node in (relay, *nodes):
        node.join(control.link())
    tunnel = Relayed(nodes, relay)
    tunnel.wake()
    return tunnel


class Overlays:
    """TCP, one stream, as tests/bench/overlay measures it."""

    TARGET = 0.4

    def __init__(self, lab, build, say):
        self.say, self.failed, self.values = say, [], {}
        self.direct, _ = tunnels.overlay(tunnels.Pair(lab), build)
        self.relayed = relayed(lab, build)

    def run_round(self, number, seconds):
        for tunnel in (self.direct, self.relayed) if number % 2 else (self.relayed, self.direct):
            try:
                found = self.measure(tunnel, seconds, reverse=number // 2 % 2)
            except LabError as error:
                self.failed.append(f"FAILED {tunnel.name}: round {number + 1}: {error}")
                self.say(self.failed[-1])
                continue
            for column, value in found.items():
                self.values.setdefault(tunnel.name, {}).setdefault(column, []).append(value)
            self.say(f"round {number + 1}: {tunnel.name}: " + ", ".join(f"{k} {v:.3g}" for k, v in found.items()))

    def measure(self, tunnel, seconds, reverse):
        relay = self.relayed.relay.program
        cpu, carried = relay.cpu_seconds(), self.relayed.carried()
        done = tunnels.tcp(tunnel, seconds, reverse=reverse)
        cpu, carried = relay.cpu_seconds() - cpu, [now - then for now, then in zip(self.relayed.carried(), carried)]
        found = {"gbits": done.bits_per_second / 1e9, "nodes_cores": done.cpu_seconds / seconds,
                 "relay_cores": cpu / seconds}
        if tunnel is self.relayed:
            found["relay_us"] = cpu / sum(carried) * 1e6
            if carried[1] > sum(carried) / 10:
                raise LabError(f"{carried[1]} of {sum(carried)} packets went over TLS")
        return found

    def median(self, tunnel, column):
        values = self.values.get(tunnel.name, {}).get(column)
        return statistics.median(values) if values else None

    def verdicts(self):
        direct, by_relay = (self.median(t, "gbits") for t in (self.direct, self.relayed))
        if not direct or not by_relay:
            return []
        return [{"column": "overlay: TCP through the relay over UDP, to direct", "value": by_relay / direct,
                 "target": self.TARGET, "reached": by_relay / direct >= self.TARGET}]

    def print_table(self):
        print("\n| overlay | Gb/s, median (lowest–highest) | cores of both nodes | cores of the relay |"
              " µs of the relay a packet |\n|---|--:|--:|--:|--:|")
        for tunnel in (self.direct, self.relayed):
            rates = self.values.get(tunnel.name, {}).get("gbits")
            if rates:
                print(f"| {tunnel.name} | {statistics.median(rates):.2f} ({min(rates):.2f}–{max(rates):.2f}) |"
                      f" {self.median(tunnel, 'nodes_cores'):.2f} | {self.median(tunnel, 'relay_cores'):.2f} |"
                      f" {text_of(self.median(tunnel, 'relay_us'), 2)} |")

    def print_verdicts(self):
        for v in self.verdicts():
            print(f"{v['column']}: {v['value']:.2f}, target ≥ {v['target']:g}:"
                  f" {'PASS' if v['reached'] else 'NOT REACHED'}")

    def as_json(self):
        return {"values": self.values, "verdicts": self.verdicts()}


def is_tls(group):
    return group.startswith("tls")


def name_of(case):
    return f"{case.group}, {case.pairs} pair{'s' if case.pairs > 1 else ''}, {case.size} B"


def hex_of(key):
    """Of base64, as it is told everywhere."""
    return base64.b64decode(key).hex()


def time_of(microseconds):
    """Negative: never."""
    return microseconds if microseconds >= 0 else float("inf")


def text_of(value, digits=0):
    if value is None:
        return "–"
    return "lost" if value == float("inf") else f"{value:.{digits}f}"
