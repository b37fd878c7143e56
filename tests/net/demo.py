"""demo.py BUILD: what ./demo shows once it has built. Ends with 1 when anything did not happen."""

import os
import shutil
import sys
import time
from pathlib import Path

from lab import Lab, LabError, tail, wait_until
from overlay import Node, Overlay
from traffic import Echo, Pulse, Transfer
from web import Web, curl

RELAY_ALPN = "p2pnode-relay/1"
PICTURE = """
      control      relay (public node: relay on TLS 443, STUN), 5 ms away from everybody
         |           |
    -----+-----------+-----------+--- internet 198.51.100.0/24 ---+-----------------+
                                 |                                |                 |
                     home [port-restricted NAT]     office [port-restricted]  cafe [symmetric]
                                 |                                |                 |
                               alice                             bob              carol
"""

MEGABYTES = 200
FRONT_DOOR = """[frontdoor]
"""
PAGE = "hello from alice, behind her NAT\n"


class Narrator:
    """Says what happens and how long it took since the start."""

    def __init__(self):
        self.begin = time.monotonic()
        self.colours = sys.stdout.isatty()

    def _paint(self, code, text):
        return f"\033[{code}m{text}\033[0m" if self.colours else text

    def chapter(self, text):
        stamp = f"[{time.monotonic() - self.begin:5.1f} s]"
        print(f"\n{self._paint('36', stamp)} {self._paint('1', text)}", flush=True)

    def say(self, text):
        for line in text.rstrip("\n").splitlines():
            print(f"          {line}", flush=True)

    def command(self, text):
        self.say(self._paint("33", f"$ {text}"))

    def holds(self, what, true):
        """Says that something was shown; it had better be true."""
        if not true:
            raise LabError(f"this did not happen: {what}")
        self.say(self._paint("32", f"ok: {what}"))


class Build:
    def __init__(self, folder):
        self.folder = Path(folder).resolve()

    def program(self, name):
        return self.folder / "programs" / name


class ProgressBar:
    """A bar on a terminal; four lines in a file."""

    def __init__(self):
        self.begin = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.next = 0.0

    def __call__(self, received, size):
        share = received / size
        if share < self.next and received != size:
            return
        self.next += 0.01 if self.terminal else 0.25
        rate = received * 8 / 1e6 / max(time.monotonic() - self.begin, 1e-3)
        bar = "#" * round(30 * share)
        print(f"\r          [{bar:<30}] {received / 1e6:4.0f} MB  {rate:5.0f} Mbit/s",
              end="" if self.terminal and received != size else "\n", flush=True)


def ms(seconds):
    return f"{seconds * 1000:.0f} ms"


def build_network(show, lab, build):
    show.chapter("One control server, one public node, three machines behind NATs")
    print(PICTURE)
    show.command("p2pcontrol init && p2pcontrol run")
    overlay = Overlay(lab, build, ("alice", "bob", "carol"))
    overlay.relay.host.delay(5)
    link = overlay.control.link()
    show.say(f"a join link: {link[:link.index('#') + 9]}...")
    for node in overlay.nodes.values():
        show.command(f"p2pctl join LINK        # on {node.name}")
        node.join(overlay.control.link())
    overlay.wait_until_known()
    show.holds("all four are members and know each other",
               all(len(node.peers()) == 3 for node in overlay.nodes.values()))
    show.command("p2pctl status             # on alice")
    show.say(overlay.nodes["alice"].ctl("status").stdout)
    return overlay


def first_traffic(show, overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    show.chapter("First traffic: the relay at once, while both NATs are opened for the direct path")
    before = alice.peer("bob")["path"]
    with Echo(bob.host), Pulse(alice.host, bob.ip, interval=0.001) as pulse:
        first = pulse.first_answer()
        show.say(f"path before: {before}; first answer from bob after {ms(first)}")
        alice.wait_for_path("bob", "direct")
        bob.wait_for_path("alice", "direct")
        direct = time.monotonic() - pulse.begin
        pulse.keeps_going(20)
        lost = pulse.lost()
    entry = alice.peer("bob")
    show.say(f"direct to {entry['endpoint']} after {ms(direct)}, {lost} packets lost on the way")
    show.holds("by relay at first, answered within 300 ms, direct within 2 s",
               before == "relay" and first <= 0.3 and direct <= 2.0)
    show.command("p2pctl ping bob            # on alice")
    show.say(alice.ctl("ping", "bob", "--count", "2").stdout)


def symmetric(show, overlay):
    bob, carol = overlay.nodes["bob"], overlay.nodes["carol"]
    show.chapter("carol's NAT is symmetric: she and bob stay with the relay")
    show.command("p2pctl ping bob            # on carol")
    show.say(carol.ctl("ping", "bob", "--count", "2").stdout)
    with Echo(bob.host), Pulse(carol.host, bob.ip) as pulse:
        first = pulse.first_answer()
        pulse.keeps_going(100)
        lost = pulse.lost()
    show.say(f"first answer after {ms(first)}, path: {carol.peer('bob')['path']}, {lost} packets lost")
    show.holds("carol and bob talk", lost == 0)


def file_transfer(show, overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    show.chapter(f"A file of {MEGABYTES} MB from alice to bob, by TCP over the overlay")
    file = alice.host.folder / "file"
    with open(file, "wb") as f, open("/dev/urandom", "rb") as random:
        shutil.copyfileobj(_first(random, MEGABYTES * 1_000_000), f, 1 << 20)
    with Echo(bob.host), Pulse(alice.host, bob.ip):
        alice.wait_for_path("bob", "direct")
    transfer = Transfer(alice.host, bob.host, bob.ip, file, progress=ProgressBar())
    file.unlink()
    show.say(f"{transfer.seconds:.1f} s, {transfer.mbit_per_s:.0f} Mbit/s, "
             f"path: {alice.peer('bob')['path']}")
    show.say(f"SHA-256 {transfer.sha256}")
    show.holds("both checksums are the same", transfer.same)


class _first:
    """The first n bytes of a file, for shutil.copyfileobj."""

    def __init__(self, file, n):
        self.file, self.left = file, n

    def read(self, size):
        data = self.file.read(min(size, self.left))
        self.left -= len(data)
        return data


def udp_cut(show, overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    show.chapter("bob's NAT drops all UDP from now on: the relay's TLS on port 443 takes over")
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        alice.wait_for_path("bob", "direct")
        pulse.keeps_going(50)
        overlay.routers["bob"].block_udp()
        gap = pulse.gap_after(time.monotonic())
        show.say(f"traffic again after {ms(gap)}")
        alice.wait_for_path("bob", "relay")
        pulse.keeps_going(100)
        show.holds("the gap is below 1 s and alice reaches bob by relay", gap <= 1.0)
        overlay.routers["bob"].unblock_udp()
        show.say("UDP is let through again")
        again = alice.wait_for_path("bob", "direct", 30)
        show.say(f"direct again after {again:.1f} s")


def control_killed(show, overlay):
    alice, bob = overlay.nodes["alice"], overlay.nodes["bob"]
    show.chapter("The control server is killed (-9) and comes back; traffic does not notice")
    members = overlay.control.names()
    with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
        pulse.keeps_going(50)
        begin = time.monotonic()
        show.command("kill -9 $(pidof p2pcontrol)")
        overlay.control.kill()
        alice.wait_for(lambda s: not s["control"]["connected"], "notices it")
        pulse.keeps_going(100)
        show.command("p2pcontrol run")
        overlay.control.start()
        for node in overlay.nodes.values():
            node.wait_for_control()
        back = time.monotonic()
        pulse.keeps_going(50)
        sent = sum(at >= begin for at in list(pulse.sent.values()))
        lost, gap = pulse.lost(since=begin), pulse.longest_gap(since=begin)
    show.say(f"all nodes back at control {back - begin:.1f} s after the kill; "
             f"{sent} pings sent meanwhile, {lost} lost, longest gap {ms(gap)}")
    show.holds("no ping lost, no member lost", lost == 0 and overlay.control.names() == members)


def front_door(show, overlay):
    alice = overlay.nodes["alice"]
    show.chapter("A web server on alice gets a public address: gate's front door, on 80 and 443, leads to her by host")
    web = Web(alice, PAGE, address="127.0.0.1")
    gate = Node(overlay.build, overlay.lab.host("gate", overlay.internet), public=True)
    gate.config.write_text(gate.config.read_text() + FRONT_DOOR)
    gate.start()
    gate.join(overlay.control.link())
    gate.wait_for_peer("alice")
    show.say("p2pnode.conf on gate:\n" + gate.config.read_text())
    for words in (("http://app.demo", "8080"), ("https://app.demo", "8443")):
        show.command("p2pctl expose " + " ".join(words) + "   # on alice: her server is at 127.0.0.1 alone")
        show.say(alice.ctl("expose", *words).stdout)
    outside = overlay.lab.host("outside", overlay.internet)
    show.command("p2pctl admin host add alice app.demo")
    overlay.control.admin("host", "add", "alice", "app.demo")
    wait_until(lambda: all(one["state"] == "live" for one in alice.rpc("node.exposures")["exposures"]),
               10, "both are live")
    wait_until(lambda: curl(outside, gate.host.ip, web, "http://app.demo/", check=False).stdout,
               10, "gate leads there")
    show.command("p2pctl exposures   # on alice")
    show.say(alice.ctl("exposures").stdout)
    for url in ("http://app.demo/", "https://app.demo/"):
        show.command(f"curl {url}   # on a machine that is no member, which finds app.demo at gate's address")
        begin = time.monotonic()
        page = curl(outside, gate.host.ip, web, url).stdout
        show.say(f"{page.rstrip()}   ({ms(time.monotonic() - begin)})")
        show.holds(f"alice's page came by {url.partition(':')[0]}", page == PAGE)
    refused = curl(outside, gate.host.ip, web, "https://other.demo/", check=False)
    show.holds("who asks for another host is turned away", refused.returncode != 0)
    relay_beside_it(show, outside, gate)


def relay_beside_it(show, outside, gate):
    """Seen from outside: what a client of the relay gets at the port that app.demo was fetched from."""
    command = ["openssl", "s_client", "-connect", f"{gate.host.ip}:443", "-servername", "gate", "-alpn", RELAY_ALPN]
    show.command(" ".join(command))
    said = outside.run(command, check=False, input="").stdout
    show.say("\n".join(line for line in said.splitlines() if line.startswith(("subject=", "ALPN protocol"))))
    show.holds("gate's relay answers on port 443 too, by server name and ALPN",
               f"ALPN protocol: {RELAY_ALPN}" in said and "CN = gate" in said)


def main():
    if len(sys.argv) != 2 or os.geteuid() != 0:
        sys.exit("usage, as root: demo.py BUILD")
    show, lab = Narrator(), Lab("demo")
    failed = None
    try:
        overlay = build_network(show, lab, Build(sys.argv[1]))
        for scene in (first_traffic, symmetric, file_transfer, udp_cut, control_killed, front_door):
            scene(show, overlay)
        show.chapter("That was all of it. On real machines: see README.md")
    except (LabError, OSError, KeyError) as error:
        failed = error
    except KeyboardInterrupt:
        failed = "interrupted"
    try:
        lab.close(keep=failed is not None)
    except LabError as error:
        failed = failed or error
    if failed:
        for log in lab.logs():
            print(f"\n---- {log}\n{tail(log, 15)}")
        print(f"\nFAILED: {failed}\nlogs: {lab.folder}")
        sys.exit(1)


if __name__ == "__main__":
    main()
