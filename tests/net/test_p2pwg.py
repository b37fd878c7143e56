"""p2pwg as a plain userspace WireGuard: with itself and with Debian's wireguard-go, driven by wg(8)
and wg-quick(8). The topology is always

    a ---+--- internet ---+--- b
"""

import os
import re
import signal
import socket
import time

import pytest

from lab import wait_until
from wireguard import Interface, new_keys

GO = "/usr/bin/wireguard-go"


class Pair:
    """Hosts a and b on one network, not yet an interface."""

    def __init__(self, lab, build):
        self.lab = lab
        self.p2pwg = build.program("p2pwg")
        self.internet = lab.network("internet", v6="2001:db8::/64")
        self.a = lab.host("a", self.internet)
        self.b = lab.host("b", self.internet)

    def interfaces(self, first=None, second=None):
        wa = Interface(self.a, first or self.p2pwg, ["10.9.0.1/24", "fd09::1/64"])
        wb = Interface(self.b, second or self.p2pwg, ["10.9.0.2/24", "fd09::2/64"])
        return wa, wb


@pytest.fixture
def pair(lab, build):
    return Pair(lab, build)


def allow_both(interface):
    return ",".join(f"{address.partition('/')[0]}/{128 if ':' in address else 32}"
                    for address in interface.addresses)


def connect_both(wa, wb, v6=False):
    wa.add_peer(wb, wb.endpoint(v6), allow_both(wb))
    wb.add_peer(wa, wa.endpoint(v6), allow_both(wa))
    wa.up()
    wb.up()


def check_tcp(wa, wb, megabytes=20, v6=False):
    """A transfer over the tunnel arrives whole: iperf3 each way."""
    ip = wb.addresses[1 if v6 else 0].partition("/")[0]
    server = wb.host.start(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_log("listening")
    result = wa.host.run(["iperf3", "-c", ip, "-n", f"{megabytes}M", "-f", "m"], timeout=60)
    server.wait(10)
    return float(re.findall(r"([\d.]+) Mbits/sec.*receiver", result.stdout)[-1])


@pytest.mark.parametrize("outer", ["v4", "v6"])
def test_two_of_us_exchange_packets(pair, outer):
    wa, wb = pair.interfaces()
    connect_both(wa, wb, v6=outer == "v6")
    wa.ping(wb.ip, 3)
    wb.ping("fd09::1", 3)
    assert wa.peer(wb).handshake > 0 and wb.peer(wa).handshake > 0
    assert wa.peer(wb).endpoint == wb.endpoint(outer == "v6")
    check_tcp(wa, wb)
    check_tcp(wb, wa, v6=True)


@pytest.mark.parametrize("outer", ["v4", "v6"])
@pytest.mark.parametrize("first", ["p2pwg", "wireguard-go"])
def test_it_speaks_with_wireguard_go(pair, first, outer):
    """Whoever begins the handshake; with a pre-shared key."""
    wa, wb = pair.interfaces(*((pair.p2pwg, GO) if first == "p2pwg" else (GO, pair.p2pwg)))
    psk = new_keys().secret
    v6 = outer == "v6"
    # Only a knows where the other is, so that a begins.
    wa.add_peer(wb, wb.endpoint(v6), allow_both(wb), psk=psk)
    wb.add_peer(wa, None, allow_both(wa), psk=psk)
    wa.up()
    wb.up()
    wa.ping(wb.ip, 3)
    wb.ping("fd09::1", 3)
    assert wb.peer(wa).endpoint == wa.endpoint(v6)
    check_tcp(wa, wb, 10)
    check_tcp(wb, wa, 10, v6=True)


def test_link_local_endpoints_work(pair):
    wa, wb = pair.interfaces()
    for mine, other in (wa, wb), (wb, wa):
        shown = other.host.run(["ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link"]).stdout
        ip = re.search(r"fe80::[0-9a-f:]+", shown)[0]
        mine.add_peer(other, f"[{ip}%eth0]:51820", allow_both(other))
        mine.up()
    wa.ping(wb.ip)
    wb.ping(wa.ip)
    assert wb.peer(wa).endpoint.startswith("[fe80::")


def test_another_preshared_key_means_no_connection(pair):
    wa, wb = pair.interfaces()
    wa.add_peer(wb, wb.endpoint(), psk=new_keys().secret)
    wb.add_peer(wa, wa.endpoint(), psk=new_keys().secret)
    wa.up()
    wb.up()
    assert not wa.reaches(wb) and not wb.reaches(wa)
    assert wa.peer(wb).handshake == 0


def wait_for_ping(interface, ip, timeout=10):
    wait_until(lambda: interface.reaches(ip), timeout, f"{ip} answers {interface.host}")


def test_a_peer_that_moves_is_followed(pair):
    """b never learns a's new address but from the packets themselves."""
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    wa.ping(wb.ip)
    assert wb.peer(wa).endpoint == "198.51.100.1:51820"
    pair.a.move("198.51.100.77")
    wa.ping(wb.ip)
    assert wb.peer(wa).endpoint == "198.51.100.77:51820"
    wb.ping(wa.ip)
    wa.set("listen-port", 40000)
    wa.ping(wb.ip)
    assert wb.peer(wa).endpoint == "198.51.100.77:40000"
    wb.ping(wa.ip)


def test_a_transfer_survives_a_move(pair):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    wa.ping(wb.ip)
    server = pair.b.start(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_log("listening")
    client = pair.a.start(["iperf3", "-c", wb.ip, "-t", "4", "-i", "0.5", "--forceflush"], name="client")
    client.wait_for_log(r"0\.5\d-1\.")
    pair.a.move("198.51.100.77")
    client.wait_for_log(r"1\.5\d-2\.")
    wa.set("listen-port", 40000)
    assert client.wait(15) == 0, client.tail()
    rates = re.findall(r"(\d+\.\d+)-\d+\.\d+ +sec +[\d.]+ .Bytes +([\d.]+) (.)bits", client.output())
    assert any(float(at) >= 3 and float(rate) > 0 for at, rate, _ in rates), client.tail()


def test_an_answer_leaves_by_the_address_that_was_asked(pair):
    """b has two addresses; asked on the second it answers from the second."""
    wa, wb = pair.interfaces()
    pair.b.run(["ip", "address", "add", "198.51.100.200/24", "dev", "eth0"])
    pair.b.run(["ip", "address", "add", "2001:db8::200/64", "dev", "eth0", "nodad"])
    wa.add_peer(wb, "198.51.100.200:51820", allow_both(wb))
    wb.add_peer(wa, None, allow_both(wa))
    wa.up()
    wb.up()
    wa.ping(wb.ip)
    assert wa.peer(wb).endpoint == "198.51.100.200:51820"
    wa.add_peer(wb, "[2001:db8::200]:51820", allow_both(wb))
    wa.ping(wb.ip)
    assert wa.peer(wb).endpoint == "[2001:db8::200]:51820"


def other_way(pair):
    """A second cable from a to b, and by it a route to the address that a knows b by, for whom asks table 100."""
    pair.a.cable(pair.b, "192.0.2.0/24")
    for host in pair.a, pair.b:
        host.sysctl("net.ipv4.conf.all.rp_filter", 0)
        host.sysctl("net.ipv4.conf.eth1.rp_filter", 0)
    pair.a._commands([f"route add {pair.b.ip} via 192.0.2.2 dev eth1 table 100"])
    return "192.0.2.1:51820"


def wait_for_endpoint(wa, wb, endpoint):
    """b hears from a there, and a hears b: sooner than a handshake for want of answers, after 15 s, would mend it."""
    wait_until(lambda: wa.reaches(wb.ip) and wb.peer(wa).endpoint == endpoint, 10,
               lambda: f"a at {endpoint}, but {wb.peer(wa).endpoint}")


def test_a_new_rule_is_followed(pair):
    """Though no route has changed: the source that a learned is not kept past the rule."""
    wa, wb = pair.interfaces()
    endpoint = other_way(pair)
    connect_both(wa, wb)
    wa.ping(wb.ip, 3)
    assert wb.peer(wa).endpoint == wa.endpoint()
    pair.a._commands([f"rule add to {pair.b.ip} lookup 100"])
    wait_for_endpoint(wa, wb, endpoint)


def test_another_mark_may_lead_another_way(pair):
    wa, wb = pair.interfaces()
    endpoint = other_way(pair)
    pair.a._commands(["rule add fwmark 7 lookup 100"])
    connect_both(wa, wb)
    wa.ping(wb.ip, 3)
    assert wb.peer(wa).endpoint == wa.endpoint()
    wa.set("fwmark", "7")
    wait_for_endpoint(wa, wb, endpoint)


def test_a_pulled_cable_is_noticed_where_routes_with_a_dead_link_are_ignored(pair):
    """As usual on routers; the kernel tells of no route then, and with a's old interface nothing would arrive."""
    wa, wb = pair.interfaces()
    endpoint = other_way(pair)
    for name in "all", "eth0":
        pair.a.sysctl(f"net.ipv4.conf.{name}.ignore_routes_with_linkdown", 1)
    pair.a._commands(["route add 198.51.100.0/24 via 192.0.2.2 dev eth1 metric 200"])
    connect_both(wa, wb)
    wa.ping(wb.ip, 3)
    assert wb.peer(wa).endpoint == wa.endpoint()
    pair.a.unplug()
    wait_for_endpoint(wa, wb, endpoint)


def test_keys_can_be_changed_while_it_runs(pair):
    """Rotation through the UAPI: a new private key makes new sessions."""
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    wa.ping(wb.ip)
    first = wb.peer(wa).handshake
    old, wa.keys = wa.keys, new_keys()
    wa.set("private-key", "/dev/stdin", input=wa.keys.secret)
    wb.set("peer", old.public, "remove")
    wb.add_peer(wa, wa.endpoint(), allow_both(wa))
    wait_for_ping(wa, wb.ip)
    assert list(wb.peers()) == [wa.keys.public]
    assert wb.peer(wa).handshake >= first


def test_sigusr1_tells_what_was_dropped(pair):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    wa.ping(wb.ip)
    with pair.a.socket() as stranger:
        for message in b"hello", b"\1\0\0\0" + bytes(144), b"\4\0\0\0" + bytes(28):
            stranger.sendto(message, (pair.b.ip, wb.port))
    wa.ping(wb.ip)

    def told():  # handshakes are handed on to another thread
        wb.program.signal(signal.SIGUSR1)
        return re.search("datagrams [0-9]+, packets [0-9]+; dropped: .*mac1 1.*unknown_index 1", wb.program.output())

    wait_until(told, 5, "that it tells of both", interval=0.1)


def test_sigusr2_begins_a_new_session_and_packets_go_on(pair):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    wa.ping(wb.ip)
    first = wa.peer(wb).handshake
    wait_until(lambda: time.time() >= first + 1, 5, "the next second")  # wg shows whole seconds
    wa.program.signal(signal.SIGUSR2)
    wait_until(lambda: wa.peer(wb).handshake > first, 12, "a new session")  # a lost initiation is sent again after 5 s
    wa.ping(wb.ip)


# ---- as wg-quick(8) and users expect it ----------------------------------------------------------

def quick_config(host, keys, address, port, peer_public, peer_endpoint, allowed):
    path = host.folder / "wg7.conf"
    path.write_text(f"[Interface]\nPrivateKey = {keys.secret}\nAddress = {address}\nListenPort = {port}\n"
                    f"[Peer]\nPublicKey = {peer_public}\nEndpoint = {peer_endpoint}\n"
                    f"AllowedIPs = {allowed}\nPersistentKeepalive = 5\n")
    path.chmod(0o600)
    return path


def has_interface(host, name):
    return host.run(["ip", "link", "show", name], check=False).returncode == 0


def processes(host, ifname):
    """Pids of p2pwg for this interface in the host's network namespace."""
    namespace = os.readlink(f"/proc/{host.pid}/ns/net")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            argv = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
            if (argv[0].endswith(b"p2pwg") and ifname.encode() in argv
                    and os.readlink(f"/proc/{pid}/ns/net") == namespace):
                found.append(int(pid))
        except OSError:
            pass
    return found


@pytest.mark.parametrize("allowed", ["10.9.0.2/32", "0.0.0.0/0, ::/0"], ids=["one", "everything"])
def test_wg_quick_brings_it_up_and_down(pair, allowed):
    wb = Interface(pair.b, pair.p2pwg, "10.9.0.2/24")
    keys = new_keys()
    config = quick_config(pair.a, keys, "10.9.0.1/24", 51820, wb.keys.public, wb.endpoint(), allowed)
    wb.add_peer(keys.public, allowed_ips="10.9.0.1/32")
    wb.up()
    env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": str(pair.p2pwg)}
    done = pair.a.run(["wg-quick", "up", config], env=env)
    assert str(pair.p2pwg) in done.stderr, "the kernel's module was used"
    # At once: the keepalive that was configured before it was up is no reason to wait for the next attempt.
    pair.a.run(["ping", "-n", "-c", "2", "-i", "0.1", "-w", "2", wb.ip])
    assert len(processes(pair.a, "wg7")) == 1
    pair.a.run(["wg-quick", "down", config], env=env)
    assert not has_interface(pair.a, "wg7")
    wait_until(lambda: not processes(pair.a, "wg7"), 5, "p2pwg ended")
    assert pair.a.run(["ls", "/var/run/wireguard"]).stdout == ""


def test_the_first_packets_do_not_wait_for_a_second_handshake(pair):
    """The kernel hands packets over before p2pwg learns that the interface is up, and opens its sockets."""
    wa, wb = pair.interfaces()
    wa.add_peer(wb, wb.endpoint())
    wb.add_peer(wa, wa.endpoint())
    wb.up()
    os.kill(wa.program.pid, signal.SIGSTOP)
    wa.up()
    assert pair.a.run(["ping", "-n", "-c", "1", "-W", "0.2", wb.ip], check=False).returncode == 1
    os.kill(wa.program.pid, signal.SIGCONT)  # the echo waits, and what tells that the interface is up
    wa.ping(wb.ip, timeout=3)


def test_in_the_background_it_returns_when_interface_and_socket_are_there(pair):
    pair.a.run([pair.p2pwg, "wg0"])
    assert pair.a.run(["wg", "show", "wg0", "listen-port"]).stdout == "0\n"
    assert "mtu 1420" in pair.a.run(["ip", "link", "show", "wg0"]).stdout
    [pid] = processes(pair.a, "wg0")
    mode = pair.a.run(["stat", "-c", "%a", "/var/run/wireguard/wg0.sock"]).stdout.strip()
    assert mode == "600"
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not has_interface(pair.a, "wg0"), 5, "the interface vanished")
    wait_until(lambda: not processes(pair.a, "wg0"), 5, "p2pwg ended")


@pytest.mark.parametrize("mode", [[], ["-f"]], ids=["background", "foreground"])
def test_a_start_that_fails_says_why(pair, mode):
    pair.a.run(["ip", "link", "add", "wg0", "type", "bridge"])
    failed = pair.a.run([pair.p2pwg, *mode, "wg0"], check=False)
    assert failed.returncode == 1 and "wg0" in failed.stderr
    failed = pair.a.run([pair.p2pwg, *mode, "a-name-that-is-too-long"], check=False)
    assert failed.returncode == 1 and "15 characters" in failed.stderr
    first = pair.a.start([pair.p2pwg, "-f", "wg1"])
    first.wait_for_log("ready")
    failed = pair.a.run([pair.p2pwg, *mode, "wg1"], check=False)
    assert failed.returncode == 1 and "another program" in failed.stderr
    assert has_interface(pair.a, "wg1") and first.running


def test_wrong_arguments_are_explained(pair):
    assert pair.a.run([pair.p2pwg, "--version"]).stdout.startswith("p2pwg ")
    assert "Usage" in pair.a.run([pair.p2pwg, "--help"]).stdout
    for arguments in [], ["wg0", "wg1"], ["--nonsense", "wg0"]:
        failed = pair.a.run([pair.p2pwg, *arguments], check=False)
        assert failed.returncode == 2 and "--help" in failed.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_on_a_signal(pair, number):
    wa, _ = pair.interfaces()
    wa.up()
    wa.program.signal(number)
    assert wa.program.wait(5) == 0
    assert not has_interface(pair.a, "wg0") and not wa.has_socket()


def test_it_ends_in_the_middle_of_traffic(pair):
    """wireguard-go once hung when it was closed while packets were under way."""
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    server = pair.b.start(["iperf3", "-s", "--forceflush"])
    server.wait_for_log("listening")
    client = pair.a.start(["iperf3", "-c", wb.ip, "-t", "60", "-i", "0.2", "-P", "4", "--bidir", "--forceflush"])
    client.wait_for_log(r"0\.20-0\.4")
    for wg in wa, wb:
        wg.program.signal(signal.SIGTERM)
        assert wg.program.wait(5) == 0
    client.kill()


def test_it_ends_when_the_interface_is_deleted(pair):
    wa, _ = pair.interfaces()
    wa.up()
    pair.a.run(["ip", "link", "delete", "wg0"])
    assert wa.program.wait(5) == 0
    assert not wa.has_socket()


def test_it_ends_when_its_socket_is_removed(pair):
    wa, _ = pair.interfaces()
    pair.a.run(["rm", "/var/run/wireguard/wg0.sock"])
    assert wa.program.wait(5) == 0
    assert not has_interface(pair.a, "wg0")


ASKING = """
import os, socket
while True:
    asking = socket.socket(socket.AF_UNIX)
    try:
        asking.connect("/var/run/wireguard/wg0.sock")
        asking.recv(1)  # until it ends
    except ConnectionRefusedError:
        os.unlink("/var/run/wireguard/wg0.sock")
    except (FileNotFoundError, ConnectionResetError):
        pass
    asking.close()
"""


def test_it_starts_while_somebody_removes_sockets_that_nobody_answers_at(pair):
    """As wg(8) does: it must not find one of a program that is about to listen."""
    asking = pair.a.start(["/usr/bin/python3", "-c", ASKING], name="asking")
    for _ in range(20):
        wg = Interface(pair.a, pair.p2pwg, ["10.9.0.1/24"])
        wg.program.stop()
    asking.kill()


def test_after_kill_9_it_starts_again(pair):
    """The socket's file is left behind then; it must not be in the way."""
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    wa.program.kill()
    wait_until(lambda: not has_interface(pair.a, "wg0"), 5, "the interface vanished")
    keys = wa.keys
    wa = Interface(pair.a, pair.p2pwg, ["10.9.0.1/24"])
    wa.keys = keys
    wa.set("private-key", "/dev/stdin", input=keys.secret)
    wa.add_peer(wb, wb.endpoint(), allow_both(wb))
    wa.up()
    wait_for_ping(wa, wb.ip)


def test_the_interface_may_be_renamed(pair):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    pair.a.run(["ip", "link", "set", "wg0", "down"])
    pair.a.run(["ip", "link", "set", "wg0", "name", "office"])
    pair.a.run(["ip", "link", "set", "office", "up"])
    wait_for_ping(wa, wb.ip)
    pair.a.run(["ip", "link", "delete", "office"])
    assert wa.program.wait(5) == 0


def test_sockets_stay_where_it_was_started_when_the_interface_moves(pair, lab):
    """WireGuard's way to give a container nothing but the tunnel."""
    wa, wb = pair.interfaces()
    wa.add_peer(wb, wb.endpoint(), allow_both(wb))
    wb.add_peer(wa, wa.endpoint(), allow_both(wa))
    wb.up()
    box = lab.host("box")  # no network at all
    pair.a.run(["ip", "link", "set", "wg0", "netns", box.pid])
    box.run(["ip", "address", "add", "10.9.0.1/24", "dev", "wg0"])
    box.run(["ip", "link", "set", "wg0", "up"])
    box.run(["ping", "-n", "-c", "2", "-i", "0.1", "-w", "5", wb.ip])
    pair.b.run(["ping", "-n", "-c", "2", "-i", "0.1", "-w", "5", "10.9.0.1"])

    # The program still follows the interface: up and down, MTU, deletion.
    assert "51820" in pair.a.run(["ss", "-Huln"]).stdout
    box.run(["ip", "link", "set", "wg0", "down"])
    wait_until(lambda: "51820" not in pair.a.run(["ss", "-Huln"]).stdout, 5, "the socket is closed")
    box.run(["ip", "link", "set", "wg0", "up"])
    wait_until(lambda: "51820" in pair.a.run(["ss", "-Huln"]).stdout, 5, "the socket is open")
    box.run(["ping", "-n", "-c", "2", "-i", "0.1", "-w", "5", wb.ip])
    assert wa.program.running
    box.run(["ip", "link", "delete", "wg0"])
    assert wa.program.wait(5) == 0


def test_the_interface_may_move_there_and_back(pair, lab):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    box = lab.host("box")
    for _ in range(10):
        pair.a.run(["ip", "link", "set", "wg0", "netns", box.pid])
        box.run(["ip", "link", "set", "wg0", "netns", pair.a.pid])
    wa.up()
    wait_for_ping(wa, wb.ip)
    assert wa.program.running


def test_port_and_mark_change_while_it_runs(pair):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    wa.ping(wb.ip)
    wa.set("listen-port", 1234, "fwmark", "0xca6c")
    assert pair.a.run(["wg", "show", "wg0", "listen-port"]).stdout == "1234\n"
    assert pair.a.run(["wg", "show", "wg0", "fwmark"]).stdout == "0xca6c\n"
    wa.ping(wb.ip)
    assert wb.peer(wa).endpoint == f"{pair.a.ip}:1234"
    # What is marked can be routed, or here: dropped.
    pair.a.nft("table inet t { chain out { type filter hook output priority 0; meta mark 0xca6c drop\n}\n}")
    assert not wa.reaches(wb)
    wa.set("fwmark", "0")
    wait_for_ping(wa, wb.ip)
    # A port that is taken is refused, and the old one stays.
    taken = pair.a.socket()
    taken.bind(("0.0.0.0", 5555))
    failed = wa.set("listen-port", 5555, check=False)
    assert failed.returncode != 0 and "in use" in failed.stderr
    wa.ping(wb.ip)
    # Any port: the kernel chooses one.
    wa.set("listen-port", 0)
    assert int(pair.a.run(["wg", "show", "wg0", "listen-port"]).stdout) not in (0, 1234)
    wa.ping(wb.ip)


def test_who_sends_to_nobody_is_told(pair):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    for ip in "10.9.0.77", "fd09::77":
        nobody = pair.a.run(["ping", "-n", "-c", "1", "-w", "5", ip], check=False)
        assert nobody.returncode == 1 and "nreachable" in nobody.stdout


def test_the_mtu_is_followed(pair):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    for mtu in 1280, 1420, 9000:
        for wg in wa, wb:
            wg.host.run(["ip", "link", "set", "wg0", "mtu", mtu])
        size = str(mtu - 28)
        wa.host.run(["ping", "-n", "-M", "do", "-s", size, "-c", "2", "-i", "0.1", "-w", "5", wb.ip])
        check_tcp(wa, wb, 5)


def test_wg_shows_what_was_set(pair):
    wa, wb = pair.interfaces()
    psk = new_keys().secret
    wa.add_peer(wb, "[2001:db8::2]:9", "10.0.0.0/8,fd00::/8,0.0.0.0/0", keepalive=25, psk=psk)
    peer = wa.peer(wb)
    assert peer.endpoint == "[2001:db8::2]:9" and peer.keepalive == "25" and peer.psk == psk
    assert sorted(peer.allowed_ips.split(",")) == ["0.0.0.0/0", "10.0.0.0/8", "fd00::/8"]
    config = pair.a.run(["wg", "showconf", "wg0"]).stdout
    pair.a.run(["wg", "setconf", "wg0", "/dev/stdin"], input=config)
    assert pair.a.run(["wg", "showconf", "wg0"]).stdout == config
    wa.set("peer", wb.keys.public, "remove")
    assert wa.peers() == {}


def test_a_thousand_peers(pair):
    wa, _ = pair.interfaces()
    lines = [f"[Interface]\nPrivateKey = {wa.keys.secret}"]
    for i in range(1000):
        key = new_keys().public if i < 3 else f"{i:06d}" + wa.keys.public[6:]
        lines.append(f"[Peer]\nPublicKey = {key}\nAllowedIPs = 10.{i // 250}.{i % 250}.0/24, "
                     f"fd00:{i:x}::/32")
    pair.a.run(["wg", "setconf", "wg0", "/dev/stdin"], input="\n".join(lines))
    assert len(wa.peers()) == 1000


UDP_SEGMENT = 103


@pytest.mark.parametrize("inner", ["v4", "v6"])
def test_datagrams_sent_in_one_call_arrive_one_by_one(pair, inner):
    """As QUIC sends: the kernel hands the interface a UDP superpacket, where it can."""
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    wa.ping(wb.ip)
    family, ip = (socket.AF_INET, wb.ip) if inner == "v4" else (socket.AF_INET6, "fd09::2")
    receiver = pair.b.socket(family)
    receiver.bind((ip, 7000))
    receiver.settimeout(5)
    sender = pair.a.socket(family)
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)
    data = os.urandom(40 * 1200 + 77)
    sender.sendto(data, (ip, 7000))
    got = [receiver.recv(65536) for _ in range(41)]
    assert [len(piece) for piece in got] == [1200] * 40 + [77] and b"".join(got) == data


# ---- what strangers send -------------------------------------------------------------------------

def test_garbage_on_the_udp_port_is_survived(pair):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    wa.ping(wb.ip)
    stranger = pair.b.socket()
    state = 12345
    for i in range(3000):
        state = state * 1103515245 + 12345 & 0x7fffffff
        size = (0, 1, 7, 8, 31, 32, 64, 92, 148, 1400)[i % 10]
        head = bytes([i % 6, 0, 0, 0]) if i % 3 else state.to_bytes(4, "little")
        stranger.sendto((head + state.to_bytes(4, "little") * 400)[:size], (pair.a.ip, 51820))
    wa.ping(wb.ip)
    wb.ping(wa.ip)
    assert wb.peer(wa).endpoint == wa.endpoint() and wa.peer(wb).endpoint == wb.endpoint()


class Uapi:
    """A raw connection to the UAPI socket, as seen from inside the host's mount namespace."""

    def __init__(self, interface):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(f"/proc/{interface.host.pid}/root/run/wireguard/{interface.name}.sock")

    def ask(self, request):
        self.socket.sendall(request if isinstance(request, bytes) else request.encode())
        return self.answer()

    def answer(self):
        text = b""
        while not text.endswith(b"\n\n"):
            more = self.socket.recv(65536)
            if not more:
                return text.decode() + "[closed]"
            text += more
        return text.decode()


def test_several_requests_on_one_connection(pair):
    wa, _ = pair.interfaces()
    uapi = Uapi(wa)
    assert uapi.ask("set=1\nfwmark=5\n\n") == "errno=0\n\n"
    assert "fwmark=5\n" in uapi.ask("get=1\n\n")
    # All at once: the answers come in order.
    uapi.socket.sendall(b"set=1\nfwmark=6\n\nget=1\n\nset=1\nfwmark=0\n\n")
    text = ""
    while text.count("errno=") < 3:
        text += uapi.answer()
    assert text.startswith("errno=0\n\n") and text.endswith("errno=0\n\n") and "fwmark=6\n" in text
    # Byte by byte.
    for byte in b"get=1\n":
        uapi.socket.sendall(bytes([byte]))
    assert "fwmark" not in uapi.ask("\n")


def test_bad_requests_are_answered_with_an_error_and_change_nothing(pair):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    before = wa.host.run(["wg", "showconf", "wg0"]).stdout
    uapi = Uapi(wa)
    key = "00" * 32
    for request, errno in [
            ("\n", -71), ("nonsense\n\n", -71), ("get=2\n\n", -71), ("set=1\nlisten_port\n\n", -71),
            ("set=1\nlisten_port=70000\n\n", -22), ("set=1\nno_such_key=1\n\n", -22),
            (f"set=1\nfwmark=9\npublic_key={key}\nendpoint=nowhere\n\n", -22),
            (f"set=1\nreplace_peers=true\npublic_key={key[2:]}\n\n", -22),
            ("set=1\nallowed_ip=10.0.0.0/8\n\n", -22)]:
        assert uapi.ask(request) == f"errno={errno}\n\n", request
    assert wa.host.run(["wg", "showconf", "wg0"]).stdout == before


def test_garbage_on_the_uapi_socket_is_survived(pair):
    wa, wb = pair.interfaces()
    connect_both(wa, wb)
    silent = [Uapi(wa) for _ in range(10)]
    half = Uapi(wa)
    half.socket.sendall(b"set=1\nfwmark=1\n")
    flood = Uapi(wa)
    with pytest.raises(OSError):
        for _ in range(40):
            flood.socket.sendall(b"x" * 1_000_000)
    for garbage in b"\0" * 100, os.urandom(5000), b"\n\n\n\n", b"set=1\n" + b"=" * 70000:
        Uapi(wa).socket.sendall(garbage)
    assert "errno=0" in Uapi(wa).ask("get=1\n\n")
    half.socket.close()
    del silent
    wa.ping(wb.ip)
