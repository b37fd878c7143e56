"""Plain WireGuard interfaces in a lab: made by any userspace program, driven by wg(8)."""

import subprocess
from collections import namedtuple

from lab import LabError, wait_until

Keys = namedtuple("Keys", "secret public")
Peer = namedtuple("Peer", "public psk endpoint allowed_ips handshake rx tx keepalive")


def new_keys():
    secret = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout.strip()
    return keys_of(secret)


def keys_of(secret):
    done = subprocess.run(["wg", "pubkey"], input=secret, capture_output=True, text=True, check=True)
    return Keys(secret, done.stdout.strip())


class Interface:
    """wg0 on a host, served by program + [-f, NAME] in the foreground; program: a path, or an argv."""

    def __init__(self, host, program, address, port=51820, name="wg0", env=None):
        self.host, self.name, self.port = host, name, port
        self.address = address  # in the tunnel, "10.9.0.1/24" or a list of them
        self.addresses = [address] if isinstance(address, str) else list(address)
        self.ip = self.addresses[0].partition("/")[0]
        self.keys = new_keys()
        argv = list(program) if isinstance(program, (list, tuple)) else [program]
        self.program = host.start([*argv, "-f", name], env=env)
        wait_until(lambda: self.answers() or not self.program.running, 10, f"{name}.sock")
        if not self.program.running:
            raise LabError(f"{program} did not start\n{self.program.tail()}")
        self.set("private-key", "/dev/stdin", "listen-port", port, input=self.keys.secret)

    def answers(self):
        """wg(8) can speak with it: there is an interface, and somebody behind the socket."""
        return self.host.run(["wg", "show", self.name], check=False).returncode == 0

    def has_socket(self):
        return self.host.run(["test", "-S", f"/var/run/wireguard/{self.name}.sock"],
                             check=False).returncode == 0

    def up(self):
        for address in self.addresses:
            self.host.run(["ip", "address", "add", address, "dev", self.name])
        self.host.run(["ip", "link", "set", self.name, "up"])

    def set(self, *arguments, **kwargs):
        return self.host.run(["wg", "set", self.name, *arguments], **kwargs)

    def add_peer(self, other, endpoint=None, allowed_ips=None, keepalive=None, psk=None):
        """other: an Interface, or a public key."""
        public = other.keys.public if isinstance(other, Interface) else other
        arguments = ["peer", public]
        if psk:
            arguments += ["preshared-key", "/dev/stdin"]
        if endpoint:
            arguments += ["endpoint", endpoint]
        if keepalive is not None:
            arguments += ["persistent-keepalive", keepalive]
        arguments += ["allowed-ips", allowed_ips or f"{other.ip}/32"]
        self.set(*arguments, input=psk)

    def endpoint(self, v6=False):
        return f"[{self.host.ip6}]:{self.port}" if v6 else f"{self.host.ip}:{self.port}"

    def peers(self):
        lines = self.host.run(["wg", "show", self.name, "dump"]).stdout.splitlines()[1:]
        found = {}
        for line in lines:
            public, psk, endpoint, allowed, handshake, rx, tx, keepalive = line.split("\t")
            found[public] = Peer(public, psk, endpoint, allowed, int(handshake), int(rx), int(tx), keepalive)
        return found

    def peer(self, other):
        return self.peers()[other.keys.public]

    def ping(self, ip, count=1, timeout=5, check=True):
        return self.host.run(["ping", "-n", "-c", count, "-i", "0.05", "-W", "2", "-w", timeout, ip],
                             check=check)

    def reaches(self, other):
        """Whether an echo comes back within a second."""
        return self.host.run(["ping", "-n", "-c", "1", "-W", "1", getattr(other, "ip", other)],
                             check=False).returncode == 0


def connect(first, second, v6=False, **kwargs):
    """Each is the other's peer, both know where the other is."""
    first.add_peer(second, second.endpoint(v6), **kwargs)
    second.add_peer(first, first.endpoint(v6), **kwargs)
    first.up()
    second.up()
