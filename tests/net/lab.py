"""The lab: hosts, routers with NAT, networks and loss on one machine, from a few lines of Python.

    with Lab("demo") as lab:
        internet = lab.network("internet", "198.51.100.0/24")
        server = lab.host("server", internet)
        home = lab.router("home", internet, nat="port-restricted")
        alice = lab.host("alice", home.inside)

        alice.run(["ping", "-c1", server.ip])
        node = alice.start(["p2pnode", "--config", alice.folder / "node.conf"])
        node.wait_for_log("joined")
        home.block_udp()

NATs are of two makes. Linux's own, in the old words ("full-cone" … "symmetric"), is what most home routers
run. Its mappings are as it likes, though, and it cannot be asked for others; so those in RFC 4787's words
("eim-eif" … "apdm-apdf": how it maps, whom it lets in) are ours (nat.py), with much else that real ones do:

    lab.router("r", internet, nat="apdm-adf", ports="step:2", hairpin="external", timeout_s=25, lag_ms=80)
    home = lab.router("home", carrier.inside, nat="eim-apdf")       # behind carrier's NAT
    lab.router("r", internet, firewall=True)                        # no NAT, but replies only
    lab.router("r", internet, nat="eim-eif", inside6="2001:db8:1::/64")  # IPv6, with the same firewall
    home.block_udp(), home.block_all_but_443(), home.reboot("198.51.100.9"), home.counts()["sessions"]

Each host, router and network is a network namespace (and a mount namespace with its own /run, so
that /run/wireguard and the like do not collide) held by a sleeping process. A network is a bridge.
There are no names to clash: labs run side by side.

Nothing is left behind. Each process of a lab carries $P2P_LAB=OWNER in its environment, OWNER being
the process that made the lab and its start time. Whatever kills that process, its reaper notices,
ends every process with the mark, and with the last one the namespaces are gone. A new lab also
sweeps marks whose owner is dead.

Only the standard library; needs root, iproute2, nftables, util-linux.
"""

import collections
import contextlib
import ctypes
import fcntl
import ipaddress
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from nat import TYPES as USERSPACE_NAT_TYPES, UserspaceNat

MARK = "P2P_LAB"
LABS = Path(os.environ.get("P2P_LAB_DIR", "/tmp/p2p-lab"))
KEEP_SECONDS = 24 * 3600  # for the folders of failed and killed labs
# Slow machines (valgrind, a busy CI) stretch every waiting time with one number.
TIMEOUT_SCALE = float(os.environ.get("P2P_TIMEOUT_SCALE", "1"))
CLONE_NEWNET = 0x40000000

# What a sanitizer or a failed assertion leaves in a log, whatever the exit code was.
CRASH = re.compile(
    r"ERROR: \w*Sanitizer|SUMMARY: \w*Sanitizer|: runtime error: |Assertion .* failed|"
    r"stack smashing detected|free\(\): invalid"
)

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(AssertionError):
    """Something in the lab did not happen; the text says what, and where to look."""


def wait_until(condition, timeout=5.0, what=None, interval=0.01):
    """The first true value of condition(); LabError after timeout seconds."""
    deadline = time.monotonic() + timeout * TIMEOUT_SCALE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            name = what() if callable(what) else what or getattr(condition, "__name__", "condition")
            raise LabError(f"after {timeout:g} s still not: {name} (last seen: {value!r})")
        time.sleep(interval)


# ---- who owns a process of a lab -----------------------------------------------------------------

def _start_time(pid):
    """Clock ticks since boot at which pid started, or None: tells a pid from its reuse."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def _owner_mark():
    return f"{os.getpid()}.{_start_time(os.getpid())}"


def _owner_alive(mark):
    pid, _, started = mark.partition(".")
    return _start_time(pid) == started.partition(".")[0]


def _marked():
    """(pid, mark) of every process of every lab on this machine."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            environ = Path(f"/proc/{entry.name}/environ").read_bytes()
        except OSError:
            continue
        for variable in environ.split(b"\0"):
            if variable.startswith(MARK.encode() + b"="):
                yield int(entry.name), variable.partition(b"=")[2].decode()


def _end_all(wanted):
    """SIGKILL to every lab process whose mark is wanted, until none is left."""
    for _ in range(100):
        pids = [pid for pid, mark in _marked() if wanted(mark) and pid != os.getpid()]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def sweep():
    """Ends the processes of labs whose owner is dead, and with them their namespaces."""
    _end_all(lambda mark: not _owner_alive(mark))
    for folder in LABS.glob("*-*-*"):
        owner = folder.name.split("-")[-2]
        with contextlib.suppress(OSError):
            if _start_time(owner) is None and time.time() - folder.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


_reaper = None


def _start_reaper():
    """One helper process, in its own session, that outlives us long enough to clean up."""
    global _reaper
    if _reaper is not None and _reaper[0] == os.getpid():
        return
    read_end, write_end = os.pipe()  # our end is closed on exec, so only our death closes it
    subprocess.Popen(
        [sys.executable or "/usr/bin/python3", __file__, "--reap", _owner_mark()],
        stdin=read_end, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, cwd="/")
    os.close(read_end)
    _reaper = (os.getpid(), write_end)


def _reap(owner):
    os.read(0, 1)  # nothing is ever written: returns when the owner is gone
    _end_all(lambda mark: mark.startswith(owner + "."))


# ---- programs ------------------------------------------------------------------------------------

class Program:
    """A program running in a namespace. Its output goes to .log, appended over restarts."""

    def __init__(self, place, argv, name, env, stdin):
        self.place, self.name, self.argv, self.env = place, name, [str(a) for a in argv], env
        self.log = place.folder / f"{name}.log"
        self.ended_by_us = False
        self._spawn(stdin)

    def _spawn(self, stdin=subprocess.DEVNULL):
        with open(self.log, "ab") as log:
            self._from = log.tell()
            self.process = subprocess.Popen(
                self.place.wrap(self.argv), stdin=stdin, stdout=log, stderr=subprocess.STDOUT,
                env=self.place.environment(self.env))
        self.ended_by_us = False
        self.started = time.monotonic()

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process.poll() is None

    def output(self):
        """What it has written since its last start."""
        with open(self.log, "rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")

    def wait_for_log(self, pattern, timeout=5.0):
        """The match of a regular expression in its output; fails at once when the program ends."""
        def found():
            running = self.running  # read first: what it wrote last still counts
            match = re.search(pattern, self.output(), re.MULTILINE)
            if not match and not running:
                raise LabError(f"{self}: ended with {self.process.returncode} before {pattern!r}"
                               f"\n{self.tail()}")
            return match
        return wait_until(found, timeout, f"{self}: {pattern!r} in {self.log}")

    def wait(self, timeout=5.0):
        """Its exit code; negative for a signal."""
        try:
            return self.process.wait(timeout * TIMEOUT_SCALE)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self}: still running after {timeout:g} s\n{self.tail()}") from None

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, timeout=5.0):
        """SIGTERM; its exit code. A program that does not end in time is a failure."""
        self.ended_by_us = True
        if self.running:
            self.process.terminate()
        return self.wait(timeout)

    def kill(self):
        """SIGKILL."""
        self.ended_by_us = True
        self.process.kill()
        return self.process.wait()

    def restart(self):
        if self.running:
            self.kill()
        self._spawn()
        return self

    def rss_kib(self, peak=False):
        """Resident memory now, or the most it ever was."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)" if peak else r"VmRSS:\s+(\d+)", status)[1])

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tail(self, lines=40):
        return tail(self.log, lines)

    def fault(self):
        """Why this program counts as failed, or None. Asked when the lab closes."""
        report = CRASH.search(self.log.read_text(errors="replace"))
        if report:
            return f"{self}: {report[0]}"
        code = self.process.poll()
        if code is not None and code < 0 and not self.ended_by_us:
            return f"{self}: died of {signal.Signals(-code).name}"
        return None

    def __str__(self):
        return f"{self.place.name}/{self.name}"


def tail(path, lines=40):
    text = Path(path).read_text(errors="replace").splitlines()
    skipped = [f"... ({len(text) - lines} lines before)"] if len(text) > lines else []
    return "\n".join(skipped + text[-lines:])


# ---- places: everything that is a namespace ------------------------------------------------------

class Place:
    """A network namespace, with what can be done inside it."""

    def __init__(self, lab, name):
        self.lab, self.name = lab, name
        self.folder = lab.folder / name
        self.folder.mkdir(parents=True)
        self.programs = []
        self._holder = self._hold()
        self.pid = self._holder.pid
        self._commands(["link set lo up"])

    def _hold(self):
        # Addresses are usable at once, without duplicate address detection.
        script = ("cd /proc/sys/net; echo 0 >ipv6/conf/default/accept_dad; "
                  "echo 0 >ipv6/conf/all/accept_dad; echo 0 >ipv6/conf/default/accept_ra; "
                  "cd \"$OLDPWD\"; "
                  "mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; "
                  "mkdir -p /run/wireguard /run/netns; echo held; exec sleep infinity")
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount",
             "--propagation", "private", "sh", "-ec", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.folder, env=self.environment())
        if holder.stdout.readline() != "held\n":
            raise LabError(f"cannot make a namespace (root needed): {holder.stderr.read()}")
        return holder

    def environment(self, extra=None):
        env = dict(os.environ, **{MARK: self.lab.mark})
        env.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:exitcode=99")
        env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
        env.update({key: str(value) for key, value in (extra or {}).items()})
        return env

    def wrap(self, argv):
        """argv wrapped so that it runs in here; every step execs, so the pid is the program's."""
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", "--target", str(self.pid),
                "--net", "--mount", "--wd", "--", *[str(a) for a in argv]]

    def run(self, argv, check=True, timeout=30.0, input=None, env=None):
        """Runs to its end; the result has .stdout, .stderr, .returncode. Logged to run.log."""
        argv = [str(a) for a in argv]
        stdin = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        try:
            done = subprocess.run(self.wrap(argv), text=True, capture_output=True,
                                  timeout=timeout * TIMEOUT_SCALE, env=self.environment(env), **stdin)
        except subprocess.TimeoutExpired as late:
            raise LabError(f"{self.name}: {' '.join(argv)}: not done after {timeout:g} s\n"
                           f"{_text(late.stdout)}{_text(late.stderr)}") from None
        with open(self.folder / "run.log", "a") as log:
            log.write(f"$ {' '.join(argv)}\n{done.stdout}{done.stderr}[{done.returncode}]\n")
        report = CRASH.search(done.stderr)
        if report or done.returncode < 0 or (check and done.returncode != 0):
            raise LabError(f"{self.name}: {' '.join(argv)}: exit code {done.returncode}\n"
                           f"{done.stdout}{done.stderr}")
        return done

    def start(self, argv, name=None, env=None, stdin=subprocess.DEVNULL):
        """Starts a program and returns at once; wait for what it does with wait_for_log or wait_until."""
        program = Program(self, argv, name or Path(str(argv[0])).name, env, stdin)
        self.programs.append(program)
        return program

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_DGRAM, proto=0):
        """A socket of this process that lives in this namespace."""
        made = []

        def make():
            with open(f"/proc/{self.pid}/ns/net") as namespace:
                # Only this thread moves, and it ends here.
                if _libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    made.append(OSError(ctypes.get_errno(), "setns"))
                else:
                    made.append(socket.socket(family, kind, proto))
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def nft(self, rules):
        """Loads nftables rules (the syntax of nft -f) in here."""
        subprocess.run(self.wrap(["nft", "-f", "-"]), input=rules, text=True, check=True)

    def sysctl(self, key, value):
        path = "/proc/sys/" + key.replace(".", "/")
        subprocess.run(self.wrap(["sh", "-c", f"echo {value} > {path}"]), check=True)

    def _commands(self, lines):
        subprocess.run(self.wrap(["ip", "-batch", "-"]), input="\n".join(lines) + "\n", text=True,
                       check=True, stdout=subprocess.DEVNULL)

    def __str__(self):
        return self.name


def _drop(percent):
    return "drop" if percent >= 100 else f"numgen random mod 10000 < {round(percent * 100)} drop"


class Network(Place):
    """A switch: a bridge that hosts and routers are plugged into."""

    def __init__(self, lab, name, v4, v6, mtu):
        super().__init__(lab, name)
        self.v4 = ipaddress.ip_network(v4) if v4 else None
        self.v6 = ipaddress.ip_network(v6) if v6 else None
        self.mtu = mtu
        self.gateway = self.gateway6 = None
        self.router = None  # whose inside this is
        self._used = 0
        self._hosts, self._routes6 = [], []
        self._commands([f"link add br0 mtu {mtu} type bridge mcast_snooping 0", "link set br0 up"])

    def next_number(self):
        self._used += 1
        return self._used

    def add_host(self, host):
        self._hosts.append(host)
        for prefix, via in self._routes6:
            self._tell(host, prefix, via)

    def route6(self, prefix, via):
        """All who are here, now or later, and all beyond, reach an IPv6 prefix by way of this address."""
        self._routes6.append((prefix, via))
        for host in self._hosts:
            self._tell(host, prefix, via)
        if self.router and self.router.ip6:
            self.router.outside.route6(prefix, self.router.ip6)

    @staticmethod
    def _tell(host, prefix, via):
        if host.ip6 and host.ip6 != via:
            host._commands([f"route replace {prefix} via {via}"])

    def loss(self, percent):
        """Drops this share of all packets that cross the network, in each direction."""
        # Not ARP: a lost one costs a second, which says nothing about the network.
        self.nft("table bridge loss; delete table bridge loss;\n"
                 "table bridge loss { chain forward { type filter hook forward priority 0;\n"
                 f"ether type {{ ip, ip6 }} {_drop(percent)}\n}}\n}}")


class Host(Place):
    """A machine. .ip (and .ip6) is its address in the network it was made with."""

    def __init__(self, lab, name):
        super().__init__(lab, name)
        self.ip = self.ip6 = None
        self.interfaces = []

    def attach(self, network, ip=None, ip6=None, interface=None):
        """Plugs into a network; returns the interface's name."""
        interface = interface or f"eth{len(self.interfaces)}"
        port = f"{self.name[:9]}.{len(self.interfaces)}"
        number = network.next_number()
        # Where both ends of a pair have the same index, Linux takes up to a second to see that a cable is in,
        # and IPv6 waits for that.
        subprocess.run(["ip", "link", "add", interface, "index", str(100 + len(self.interfaces)), "mtu",
                        str(network.mtu), "netns", str(self.pid), "type", "veth", "peer", "name", port,
                        "index", str(1000 + number), "mtu", str(network.mtu), "netns", str(network.pid)],
                       check=True)
        network._commands([f"link set {port} master br0 up"])
        ip = ip or (network.v4 and str(network.v4[number]))
        ip6 = ip6 or (network.v6 and str(network.v6[number]))
        self._commands(self._addressing(network, interface, ip, ip6))
        self.interfaces.append((interface, network, port))
        self.ip, self.ip6 = self.ip or ip, self.ip6 or ip6
        network.add_host(self)
        return interface

    def cable(self, other, v4="192.0.2.0/24", mtu=1500):
        """Joins both hosts directly, with no switch between them; they get the prefix's first addresses."""
        prefix = ipaddress.ip_network(v4)
        ends = [(host, f"eth{len(host.interfaces)}") for host in (self, other)]
        subprocess.run(["ip", "link", "add", ends[0][1], "mtu", str(mtu), "netns", str(self.pid), "type",
                        "veth", "peer", "name", ends[1][1], "mtu", str(mtu), "netns", str(other.pid)],
                       check=True)
        for number, (host, interface) in enumerate(ends, 1):
            ip = str(prefix[number])
            host._commands([f"addr add {ip}/{prefix.prefixlen} dev {interface}", f"link set {interface} up"])
            host.interfaces.append((interface, None, None))
            host.ip = host.ip or ip

    @staticmethod
    def _addressing(network, interface, ip, ip6):
        commands = []
        if ip:
            commands.append(f"addr add {ip}/{network.v4.prefixlen} dev {interface}")
        if ip6:
            commands.append(f"addr add {ip6}/{network.v6.prefixlen} dev {interface} nodad")
        commands.append(f"link set {interface} up")
        if ip and network.gateway:
            commands.append(f"route add default via {network.gateway}")
        if ip6 and network.gateway6:
            commands.append(f"route add default via {network.gateway6}")
        return commands

    def move(self, ip, interface="eth0"):
        """Gives the interface another IPv4 address of its network, as after a new lease."""
        network = next(n for i, n, _ in self.interfaces if i == interface)
        self._commands([f"addr flush dev {interface} scope global"]
                       + self._addressing(network, interface, ip, None))
        self.ip = ip

    def unplug(self, interface="eth0"):
        """The cable out, as the network sees it."""
        _, network, port = next(i for i in self.interfaces if i[0] == interface)
        network._commands([f"link set {port} down"])

    def plug(self, interface="eth0"):
        _, network, port = next(i for i in self.interfaces if i[0] == interface)
        network._commands([f"link set {port} up"])

    def loss(self, percent, interface="eth0"):
        """Drops this share of what arrives at and of what leaves the interface."""
        drop = f"meta protocol {{ ip, ip6 }} {_drop(percent)}"
        self.nft(f"table netdev loss; delete table netdev loss;\ntable netdev loss {{\n"
                 f"chain in {{ type filter hook ingress device {interface} priority 0;\n{drop}\n}}\n"
                 f"chain out {{ type filter hook egress device {interface} priority 0;\n{drop}\n}}\n}}")

    def delay(self, milliseconds, interface="eth0"):
        """Each packet to and from the interface takes so much longer; for control traffic, not for load."""
        self._cut(interface, lambda left, right: [
            sys.executable or "/usr/bin/python3", __file__, "--wire", left, right, str(milliseconds)])

    def wire(self, tool, per_mille, distance, interface="eth0"):
        """So many of a thousand packets to and from the interface are overtaken by up to distance others."""
        return self._cut(interface, lambda left, right: [tool, left, right, per_mille, distance])

    def _cut(self, interface, argv):
        """Puts a program between the interface and its network: argv(one interface, the other)."""
        name, network, port = next(i for i in self.interfaces if i[0] == interface)
        wire = f"w.{port}"
        network._commands([f"link set {port} nomaster",
                           f"link add {wire} mtu {network.mtu} type veth peer name b.{port}",
                           f"link set b.{port} mtu {network.mtu} master br0 up", f"link set {wire} up"])
        # The wire carries frames as they are: whole checksums, none larger than the MTU.
        _no_offload(self, name)
        _no_offload(network, f"b.{port}")
        program = network.start(argv(port, wire), name=f"wire-{port}")
        program.wait_for_log("wired")
        return program

    def bandwidth(self, mbit, interface="eth0"):
        """Limits what leaves the interface, with 50 ms of queue."""
        subprocess.run(self.wrap(["tc", "qdisc", "replace", "dev", interface, "root", "tbf", "rate",
                                    f"{mbit}mbit", "burst", "64kb", "latency", "50ms"]), check=True)


# NAT in RFC 3489's words. Linux keeps the source port where it can, which makes its masquerading an
# endpoint-independent mapping; the filter is what the cone types differ in.
_MASQUERADE = {None: "", "full-cone": "masquerade persistent", "restricted": "masquerade persistent",
               "port-restricted": "masquerade persistent", "symmetric": "masquerade fully-random"}
NAT_TYPES = tuple(t for t in _MASQUERADE if t)

_RULES = """
table ip nat {{
    set contacted {{ type ipv4_addr; }}
    chain postrouting {{ type nat hook postrouting priority srcnat; policy accept;
        oifname "eth0" {masquerade}
    }}
    chain prerouting {{ type nat hook prerouting priority dstnat; policy accept;
        {unasked}
    }}
    chain remember {{ type filter hook postrouting priority mangle; policy accept;
        oifname "eth0" meta l4proto udp add @contacted {{ ip daddr }}
    }}
}}
table inet filter {{
    chain forward {{ type filter hook forward priority filter; policy drop;
        iifname "eth1" accept
        ct state established,related accept
        {admit}
    }}
    chain input {{ type filter hook input priority filter; policy drop;
        iifname {{ "lo", "eth1" }} accept
        ct state established,related accept
        meta l4proto icmpv6 accept
    }}
}}
"""


# Without NAT: what was not asked for from inside stays outside.
_FIREWALL = """
table inet filter {
    chain forward { type filter hook forward priority filter; policy drop;
        iifname "eth1" accept
        ct state established,related accept
    }
}
"""


class Router(Host):
    """A router between .outside and .inside (a network of its own), by eth0 and eth1, with NAT or without.

    Linux's NAT:
    full-cone         anyone may send to a mapping
    restricted        those may whose address was sent to
    port-restricted   those may whose address and port was sent to
    symmetric         as port-restricted, and another mapping for each destination
    None              routes; stateless

    The first two serve the first host inside: what they let in without being asked goes there.
    For ours see Lab.router. .addresses are the public ones, .ip the first of them.
    """

    def __init__(self, lab, name, nat):
        super().__init__(lab, name)
        if nat not in _MASQUERADE and nat not in USERSPACE_NAT_TYPES:
            raise ValueError(f"nat={nat!r}: one of {NAT_TYPES + USERSPACE_NAT_TYPES} or None")
        self.nat = nat
        self.outside = self.inside = self.userspace = None
        self.addresses = []

    def connect(self, outside, inside, ip=None, ip6=None, addresses=1, firewall=False, **options):
        self.attach(outside, ip, ip6)
        self.outside, self.inside = outside, inside
        self.attach(inside)
        inside.router = self
        inside.gateway = str(inside.v4[1]) if inside.v4 else None
        inside.gateway6 = str(inside.v6[1]) if inside.v6 else None
        self.addresses = [self.ip] + [str(outside.v4[outside.next_number()]) for _ in range(addresses - 1)]
        self._commands([f"addr add {a}/{outside.v4.prefixlen} dev eth0" for a in self.addresses[1:]])
        self.sysctl("net.ipv4.ip_forward", 1)
        self.sysctl("net.ipv6.conf.all.forwarding", 1)
        if self.nat in USERSPACE_NAT_TYPES:
            self.userspace = UserspaceNat(self, self.nat, self.addresses, **options)
        elif options or addresses > 1:
            raise ValueError(f"nat={self.nat!r} has no options, and one address")
        elif self.nat or firewall:
            self.nft(self._rules() if self.nat else _FIREWALL)
        if self.ip6 and inside.v6:
            outside.route6(inside.v6, self.ip6)

    def _rules(self):
        first = self.inside.v4[2]  # the router itself is number 1
        unasked = {"full-cone": f'iifname "eth0" meta l4proto udp dnat to {first}',
                   "restricted": f'iifname "eth0" meta l4proto udp ip saddr @contacted dnat to {first}'}
        return _RULES.format(
            masquerade=_MASQUERADE[self.nat], unasked=unasked.get(self.nat, ""),
            admit="ct status dnat accept" if self.nat in unasked else "")

    def block_udp(self):
        """Drops all UDP through the router, both ways, without a word; also of flows that exist."""
        self._block("cut", "meta l4proto udp drop")

    def unblock_udp(self):
        self.nft("delete table inet cut")

    def block_all_but_443(self):
        """Nothing passes but TCP to and from port 443, as in a guest's network; no ping, no DNS."""
        self._block("only443", "tcp dport 443 accept; tcp sport 443 accept; drop")

    def unblock_all(self):
        self.nft("delete table inet only443")

    def _block(self, table, rules):
        self.nft(f"table inet {table} {{ chain forward {{ type filter hook forward priority -10;\n"
                 f"{rules}\n}}\n}}")

    def forget(self):
        """Ends all mappings, as a reboot does."""
        if self.userspace:
            self.userspace.forget()
        else:
            self.run(["conntrack", "-F"])
            if self.nat:
                self.nft("flush set ip nat contacted")

    def reboot(self, ip=None):
        """Ends all mappings; with ip, it comes back with another public address in place of the first."""
        if ip:
            size = self.outside.v4.prefixlen
            self._commands([f"addr del {a}/{size} dev eth0" for a in self.addresses])
            self.ip, self.addresses[0] = ip, ip
            self._commands(self._addressing(self.outside, "eth0", ip, None)
                           + [f"addr add {a}/{size} dev eth0" for a in self.addresses[1:]])
        if self.userspace:
            self.userspace.readdress(self.addresses)
        else:
            self.forget()

    def counts(self):
        """What the NAT holds now and at most held, and what it refused; Linux's tells "sessions" alone."""
        if self.userspace:
            return self.userspace.counts()
        return {"sessions": int(self.run(["conntrack", "-C"]).stdout)}


# ---- the lab -------------------------------------------------------------------------------------

class Lab:
    """Networks, hosts and routers that live until close(), or until this process dies."""

    _count = 0

    def __init__(self, name="lab"):
        sweep()
        _start_reaper()
        Lab._count += 1
        # Short: the paths of Unix sockets below it have 108 bytes.
        self.name = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:40]
        self.mark = f"{_owner_mark()}.{Lab._count}"
        self.folder = LABS / f"{self.name}-{os.getpid()}-{Lab._count}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.places = []
        self._inside_count = 0

    def network(self, name="internet", v4="198.51.100.0/24", v6=None, mtu=1500):
        """A switch. Hosts get the addresses of the prefix in the order they are attached."""
        return self._add(Network(self, name, v4, v6, mtu))

    def host(self, name, network=None, ip=None, ip6=None):
        """A machine, plugged into network when one is given."""
        host = self._add(Host(self, name))
        if network is not None:
            host.attach(network, ip, ip6)
        return host

    def router(self, name, outside, nat=None, ip=None, ip6=None, inside=None, inside6=None, **options):
        """A router on the network outside with a new network inside (10.N.0.0/24 by itself).

        firewall=True            with nat=None: only what inside has asked for comes in; a NAT always is one
        With nat="eim-eif" … "apdm-apdf" (EIM, ADM, APDM: how it maps; EIF, ADF, APDF: whom it lets in):
        hairpin="external"       what inside sends to a public address of the router comes back in, from the
                                 sender's mapping; "internal": from its address inside
        ports="step:2"           the next port is the last one plus 2; "preserve": the one inside if it is
                                 free (default of EIM); "random" (default of the others)
        port_range=(a, b)        all ports it has
        addresses=2, pool="…"    public addresses; "paired": a host has one, "arbitrary": a mapping has one
        lag_ms=80                whom a packet asked is let in so long after it
        timeout_s=25             a mapping of UDP unused for so long is gone; refresh="outbound": what comes
                                 in is no use
        mappings=, sessions=     how many it can hold; what would be one more is dropped and counted
        seed=                    of its random ports
        """
        self._inside_count += 1
        router = self._add(Router(self, name, nat))
        network = self.network(f"{name}-inside", inside or f"10.{self._inside_count}.0.0/24", inside6,
                               outside.mtu)
        router.connect(outside, network, ip, ip6, **options)
        return router

    def _add(self, place):
        self.places.append(place)
        return place

    @property
    def programs(self):
        return [program for place in self.places for program in place.programs]

    def logs(self):
        """Every log of the lab that is not empty."""
        return [p for p in sorted(self.folder.glob("*/*.log")) if p.stat().st_size > 0]

    def faults(self):
        """What sanitizers and signals say about the programs so far."""
        return [fault for program in self.programs if (fault := program.fault())]

    def end(self):
        """Ends every process; the namespaces go with them. The folder stays. May be called twice."""
        for program in self.programs:
            if program.running:
                program.ended_by_us = True
                program.process.terminate()
        self._wait_for_programs(3.0)
        _end_all(lambda mark: mark == self.mark)
        for process in [p.process for p in self.programs] + [p._holder for p in self.places]:
            process.wait()
        for place in self.places:
            place._holder.stdout.close()
            place._holder.stderr.close()

    def _wait_for_programs(self, seconds):
        deadline = time.monotonic() + seconds * TIMEOUT_SCALE
        for program in self.programs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.process.wait(max(0.0, deadline - time.monotonic()))

    def close(self, keep=False):
        """Ends the lab; raises LabError when a program crashed. The folder is kept then, or on keep."""
        self.end()
        faults = self.faults()
        if not (keep or faults or os.environ.get("P2P_LAB_KEEP")):
            shutil.rmtree(self.folder, ignore_errors=True)
        if faults:
            raise LabError("\n".join(faults) + f"\nlogs: {self.folder}")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.close(keep=kind is not None)
        except LabError:
            if kind is None:
                raise


# ---- a slow wire: Linux has netem for it, but not every kernel has netem ---------------------------

_SIOCETHTOOL = 0x8946
_OFFLOADS = (0x17, 0x1f, 0x24)  # ETHTOOL_STXCSUM, _STSO, _SGSO
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23


def _no_offload(place, interface):
    with place.socket() as s:
        for command in _OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            fcntl.ioctl(s, _SIOCETHTOOL, struct.pack("16sP", interface.encode(), ctypes.addressof(value)))


def _wire(left, right, milliseconds):
    """Carries frames between two interfaces of this namespace, each one so much later."""
    ends = []
    for name in (left, right):
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.bind((name, 0))
        s.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        # PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC: also frames to other addresses.
        s.setsockopt(_SOL_PACKET, 1, struct.pack("IHH8s", socket.if_nametoindex(name), 1, 0, b""))
        ends.append(s)
    print("wired", flush=True)
    on_the_way = collections.deque()
    while True:
        wait = on_the_way[0][0] - time.monotonic() if on_the_way else None
        ready, _, _ = select.select(ends, [], [], None if wait is None else max(0.0, wait))
        now = time.monotonic()
        for end in ready:
            on_the_way.append((now + milliseconds / 1000, ends[end is ends[0]], end.recv(65535)))
        while on_the_way and on_the_way[0][0] <= now:
            _, end, frame = on_the_way.popleft()
            with contextlib.suppress(OSError):
                end.send(frame)


def _text(output):
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--reap":
        _reap(sys.argv[2])
    elif len(sys.argv) == 5 and sys.argv[1] == "--wire":
        _wire(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    elif sys.argv[1:] == ["--sweep"]:
        sweep()
    else:
        sys.exit("usage: lab.py --sweep")
