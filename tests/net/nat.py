"""The NATs that nftables cannot be: a router's packets go through tests/lib/nat/nat_box.

      inside                                                                    outside
             eth1 -- mark 1 --> natin --.            .--> natout -- route --> eth0
      hosts                              >  nat_box  <                              internet
             eth1 <-- route --- natin --'            `--- natout <-- mark 2 -- eth0

The kernel does all else: ARP, routes, fragments, IPv6, what is cut.
"""

import json
import os
import signal
import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

TYPES = tuple(f"{mapping}-{filtering}" for mapping in ("eim", "adm", "apdm")
              for filtering in ("eif", "adf", "apdf"))

_RULES = """
table ip steer {{
    set public {{ type ipv4_addr; }}
    chain steer {{ type filter hook prerouting priority mangle; policy accept;
        ip daddr {{ {gateway}, {broadcast}, 224.0.0.0/4, 255.255.255.255 }} accept
        iifname "eth1" meta l4proto {{ udp, tcp, icmp }} meta mark set 1
        iifname "eth0" ip daddr @public meta l4proto {{ udp, tcp, icmp }} meta mark set 2
    }}
    chain raw {{ type filter hook prerouting priority raw; policy accept;
        notrack
    }}
}}
table inet filter {{
    chain forward {{ type filter hook forward priority filter; policy drop;
        iifname {{ "eth1", "natin", "natout" }} accept
        oifname "natout" accept
        ct state established,related accept
    }}
    chain input {{ type filter hook input priority filter; policy drop;
        iifname {{ "lo", "eth1" }} accept
        ct state established,related accept
        meta l4proto {{ icmp, icmpv6 }} accept
    }}
}}
"""

# The kernel's own addresses come after the marks, and may be sources of what nat_box sends.
_DEVICES = ["tuntap add dev natin mode tun", "tuntap add dev natout mode tun"]
# What the other side's network would not carry is told, or cut, on the way in here.
_ROUTES = ["link set natin mtu {outside_mtu} txqueuelen 2000 up",
           "link set natout mtu {inside_mtu} txqueuelen 2000 up",
           "route add default dev natin table 101", "route add default dev natout table 102",
           "rule add pref 10 fwmark 1 lookup 101", "rule add pref 11 fwmark 2 lookup 102",
           "rule add pref 20 lookup local", "rule del pref 0"]

_SETTINGS = ("cd /proc/sys/net/ipv4/conf; for i in natin natout; do echo 1 >$i/accept_local; "
             "echo 1 >../../ipv6/conf/$i/disable_ipv6; done; "
             "for i in all natin natout eth0 eth1; do echo 0 >$i/rp_filter; done")


def program():
    """nat_box of the build under test: $P2P_BUILD, or build-check."""
    build = Path(os.environ.get("P2P_BUILD", ROOT / "build-check")).resolve()
    path = build / "tests" / "lib" / "nat" / "nat_box"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: ninja -C {build}")
    return path


class UserspaceNat:
    """The NAT of a router that is connected on both sides. Options are those of Lab.router."""

    def __init__(self, router, kind, addresses, hairpin=None, ports=None, port_range=None, pool="paired",
                 lag_ms=0, timeout_s=120, refresh="both", mappings=16384, sessions=65536, seed=1):
        self.router = router
        self.path = router.folder / "nat.sock"
        ports = ports or ("preserve" if kind.startswith("eim") else "random")
        self.argv = [program(), "natin", "natout", f"type={kind}", f"hairpin={hairpin or 'off'}",
                     f"ports={ports}", f"pool={pool}", f"lag-ms={lag_ms}",
                     f"timeout-ms={round(timeout_s * 1000)}", f"refresh={refresh}", f"mappings={mappings}",
                     f"sessions={sessions}", f"seed={seed}", f"control={self.path}",
                     *[f"address={ip}" for ip in addresses]]
        if port_range:
            self.argv.append(f"port-range={port_range[0]}-{port_range[1]}")
        inside = router.inside.v4
        router.nft(_RULES.format(gateway=inside[1], broadcast=inside.broadcast_address))
        self._set_public(addresses)
        router._commands(_DEVICES)
        router.run(["sh", "-ec", _SETTINGS])
        mtus = {"outside_mtu": router.outside.mtu, "inside_mtu": router.inside.mtu}
        router._commands([line.format(**mtus) for line in _ROUTES])
        self.box = router.start(self.argv, name="nat")
        self.box.wait_for_log("^ready")

    def _set_public(self, addresses):
        self.router.nft(f"flush set ip steer public; add element ip steer public {{ {', '.join(addresses)} }}")

    def ask(self, line):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(self.path))
            s.sendall(f"{line}\n".encode())
            return s.makefile().read()

    def counts(self):
        return json.loads(self.ask("counts"))

    def forget(self):
        self.box.signal(signal.SIGHUP)

    def readdress(self, addresses):
        self._set_public(addresses)
        answer = self.ask("forget " + " ".join(addresses))
        if answer != "ok\n":
            raise ValueError(answer)
