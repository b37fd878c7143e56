"""What the benchmarks share: two hosts, the ways to carry packets between them, and how one is measured.

    control   relay (public node)
       |        |
    ---+--------+---+--- a switch, for the overlay's services only
                    |
                  alice ============ bob
                         a cable (veth)

All tunnels stand between alice and bob at the same time and are used one after the other.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "net"))

from lab import Lab, LabError, wait_until  # noqa: E402, F401
from overlay import Control, Node  # noqa: E402
from traffic import Echo, Pulse  # noqa: E402
from wireguard import Interface, connect  # noqa: E402

GB, MB, KIB = 1e9, 1e6, 1024
MTU = 1420  # of every tunnel that lets us choose
IPERF_PORT = 5201
PING_INTERVAL = 0.01
QUIET_SHARE = 0.05


class Build:
    """The release build to measure: $P2P_BUILD, or build-demo."""

    def __init__(self):
        self.folder = Path(os.environ.get("P2P_BUILD", ROOT / "build-demo")).resolve()

    def program(self, name):
        path = self.folder / "programs" / name
        if not path.exists():
            sys.exit(f"{path} is not there: run ./demo, or ninja -C {self.folder}")
        return path

    def bench(self, name):
        path = self.folder / "tests" / "bench" / name
        if not path.exists():
            sys.exit(f"{path} is not there: in a release build with tests, ninja -C FOLDER bench; P2P_BUILD=FOLDER")
        return path


class Pair:
    """alice and bob, and room for services that both reach by way of alice."""

    def __init__(self, lab):
        self.lab = lab
        self.alice, self.bob = self.hosts = lab.host("alice"), lab.host("bob")
        self.alice.cable(self.bob)
        self.switch = lab.network("switch")
        self.alice.attach(self.switch)
        self.alice.sysctl("net.ipv4.ip_forward", 1)
        self.bob.run(["ip", "route", "add", self.switch.v4, "via", self.alice.ip])
        self._numbers = iter(range(90, 250))

    def service(self, name):
        host = self.lab.host(name, self.switch)
        host.run(["ip", "route", "add", f"{self.bob.ip}/32", "via", self.alice_at_switch()])
        host.run(["ip", "route", "add", f"{self.alice.ip}/32", "via", self.alice_at_switch()])
        return host

    def alice_at_switch(self):
        return str(self.switch.v4[1])

    def number(self):
        """For a tunnel's prefix and port."""
        return next(self._numbers)


class Tunnel:
    """A way from alice to bob: the addresses at both ends, and the programs that carry it."""

    def __init__(self, name, hosts, ips, programs=(), interface="eth0"):
        self.name, self.hosts, self.ips, self.programs = name, hosts, ips, programs
        link = hosts[0].run(["ip", "-json", "link", "show", interface]).stdout
        self.mtu = json.loads(link)[0]["mtu"]

    def cpu_seconds(self):
        return sum(program.cpu_seconds() for program in self.programs)

    def peak_rss(self):
        """Bytes: the most that one of the programs ever had resident."""
        return max((p.rss_kib(peak=True) * KIB for p in self.programs), default=0)

    def wake(self):
        """Until an echo comes back: handshakes are no part of what is measured."""
        wait_until(lambda: self.hosts[0].run(["ping", "-n", "-c", "1", "-W", "1", self.ips[1]],
                                             check=False).returncode == 0, 15, f"{self.name} answers")

    def confirm(self):
        """Asked after a measurement: LabError when that was not of this tunnel."""


class Overlay(Tunnel):
    """By the direct path, or not at all: by the relay it would be another measurement."""

    def __init__(self, nodes):
        super().__init__("overlay (p2pnode)", [n.host for n in nodes], [n.ip for n in nodes],
                         [n.program for n in nodes], "p2p0")
        self.nodes = nodes

    def wake(self):
        alice, bob = self.nodes
        with Echo(bob.host), Pulse(alice.host, self.ips[1]):
            alice.wait_for_path("bob", "direct", 40)
            bob.wait_for_path("alice", "direct", 40)
        super().wake()

    def confirm(self):
        alice, bob = self.nodes
        paths = alice.peer("bob")["path"], bob.peer("alice")["path"]
        if paths != ("direct", "direct"):
            raise LabError(f"{self.name}: has gone over to another path: {' and '.join(paths)}")


# ---- the ways

def plain(pair):
    return Tunnel("plain veth", pair.hosts, [host.ip for host in pair.hosts])


def wireguard(pair, name, argv, env=None):
    """Any userspace WireGuard that takes -f INTERFACE, configured with wg(8)."""
    number = pair.number()
    ends = [Interface(host, argv, f"10.{number}.0.{i}/24", 51800 + number, f"wg{number}",
                      env={"WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": 1, **(env or {})})
            for i, host in enumerate(pair.hosts, 1)]
    for end in ends:
        end.host.run(["ip", "link", "set", end.name, "mtu", MTU])
    connect(*ends)
    return Tunnel(name, pair.hosts, [end.ip for end in ends], [end.program for end in ends], ends[0].name)


def overlay(pair, build):
    """p2pnode at both ends, on the direct path. Also the programs, by what they are: control, relay, node."""
    control = Control(build, pair.service("control")).start()
    relay = Node(build, pair.service("relay"), public=True).start()
    nodes = [Node(build, host, config=f"mtu = {MTU}\n").start() for host in pair.hosts]
    for node in (relay, *nodes):
        node.join(control.link())
    tunnel = Overlay(nodes)
    tunnel.wake()
    return tunnel, {"control": control.program, "relay": relay.program, "node": nodes[0].program}


_NEBULA = """
pki: {{ca: {folder}/ca.crt, cert: {folder}/{name}.crt, key: {folder}/{name}.key}}
static_host_map: {{"{peer_ip}": ["{peer}:{port}"]}}
lighthouse: {{am_lighthouse: false}}
listen: {{host: 0.0.0.0, port: {port}}}
tun: {{dev: nebula0, mtu: {mtu}}}
cipher: aes
logging: {{level: error}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"""


def nebula(pair):
    """Not WireGuard: a protocol of its own, here with AES. Its certificates are made on the spot."""
    number, folder = pair.number(), pair.lab.folder
    ips, port = [f"10.{number}.0.{i}" for i in (1, 2)], 51800 + number
    subprocess.run(["nebula-cert", "ca", "-name", "bench"], cwd=folder, check=True)
    programs = []
    for i, host in enumerate(pair.hosts):
        subprocess.run(["nebula-cert", "sign", "-name", host.name, "-networks", f"{ips[i]}/24"],
                       cwd=folder, check=True)
        config = host.folder / "nebula.yml"
        config.write_text(_NEBULA.format(folder=folder, name=host.name, peer_ip=ips[1 - i], port=port,
                                         peer=pair.hosts[1 - i].ip, mtu=MTU))
        programs.append(host.start(["nebula", "-config", config]))
    for host in pair.hosts:
        wait_until(lambda: host.run(["ip", "link", "show", "nebula0", "up"], check=False).stdout, 10,
                   "nebula is up")
    return Tunnel("nebula (AES)", pair.hosts, ips, programs, "nebula0")


# ---- what is measured

Tcp = namedtuple("Tcp", "bits_per_second bytes cpu_seconds iperf_cpu_seconds")
Udp = namedtuple("Udp", "bits_per_second datagrams_per_second")
Ping = namedtuple("Ping", "p50_ms p99_ms lost_share")


def _listens(host, port):
    """Whether somebody does, without a connection that would count as the test's."""
    tables = "".join(Path(f"/proc/{host.pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
    return re.search(rf":{port:04X} [0-9A-F]+:0000 0A ", tables)


class _Iperf:
    """iperf3 from alice to bob; .finish() is the client's report and the server's."""

    def __init__(self, tunnel, seconds, *options):
        self.tunnel, self.seconds = tunnel, seconds
        alice, bob = tunnel.hosts
        self.server = bob.start(["iperf3", "-s", "-1", "-J", "-B", tunnel.ips[1]], name="iperf3-server")
        wait_until(lambda: _listens(bob, IPERF_PORT), 5, "iperf3 listens")
        self.client = alice.start(["iperf3", "-c", tunnel.ips[1], "-t", str(seconds), "-J", *options],
                                  name="iperf3-client")

    def finish(self):
        reports = []
        for program in (self.client, self.server):
            code = program.wait(self.seconds + 20)
            try:
                reports.append(json.loads(program.output()))
            except json.JSONDecodeError:
                reports.append({"error": f"exit code {code}, no report"})
            if "error" in reports[-1]:
                raise LabError(f"{self.tunnel.name}: {program}: {reports[-1]['error']}")
        self.tunnel.confirm()
        return reports

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in (self.client, self.server):
            if program.running:
                program.kill()


def _ended_cpu_seconds():
    """Of all programs that we started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tcp(tunnel, seconds, streams=1, reverse=False):
    """From alice to bob, or back; what arrived."""
    tunnel.wake()
    before, iperf_before = tunnel.cpu_seconds(), _ended_cpu_seconds()
    with _Iperf(tunnel, seconds, "-P", str(streams), *(["-R"] if reverse else [])) as iperf:
        received = iperf.finish()[0]["end"]["sum_received"]
    return Tcp(received["bits_per_second"], received["bytes"], tunnel.cpu_seconds() - before,
               _ended_cpu_seconds() - iperf_before)


def udp(tunnel, seconds, size):
    """What arrives while alice sends datagrams of `size` bytes as fast as she can."""
    tunnel.wake()
    with _Iperf(tunnel, seconds, "-u", "-b", "0", "-l", str(size)) as iperf:
        intervals = iperf.finish()[1]["intervals"]
    # A last, partial one begins when the sender has stopped.
    arrived = [i["sum"] for i in intervals[:seconds]]
    if not arrived:
        raise LabError(f"{tunnel.name}: iperf3 reports no interval")
    rate = sum(i["bytes"] for i in arrived) * 8 / sum(i["seconds"] for i in arrived)
    return Udp(rate, rate / 8 / size)


def percentile(values, percent):
    """The smallest value that so many percent do not exceed."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def loaded_ping(tunnel, seconds):
    """Echoes beside one TCP stream. A lost one took for ever."""
    tunnel.wake()
    count = int(seconds / PING_INTERVAL)
    with _Iperf(tunnel, seconds + 1) as iperf:
        done = tunnel.hosts[0].run(["ping", "-n", "-i", str(PING_INTERVAL), "-c", str(count), "-W", "1",
                                    tunnel.ips[1]], check=False, timeout=seconds + 20)
        iperf.finish()
    times = [float(t) for t in re.findall(r"time=([\d.]+) ms", done.stdout)]
    lost = [float("inf")] * (count - len(times))
    return Ping(percentile(times + lost, 50), percentile(times + lost, 99), len(lost) / count)


def _busy_and_all_ticks():
    fields = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)  # without idle and iowait


def disturbance():
    """A line to print when others compute on this machine now, else None. Takes a second."""
    busy, ticks = _busy_and_all_ticks()
    time.sleep(1)
    busy_now, ticks_now = _busy_and_all_ticks()
    share = (busy_now - busy) / max(1, ticks_now - ticks)
    if share < QUIET_SHARE:
        return None
    return f"WARNING: others use {share:.0%} of this machine: the figures are not those of a quiet one"


def is_installed(*programs):
    return all(shutil.which(program) for program in programs)
