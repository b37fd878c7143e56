"""p2pwg as a plain userspace WireGuard: with itself and with Debian's wireguard-go, driven by wg(8)
and wg-quick(8). The topology is always

    a ---+--- internet ---+--- b
"""

import os
import re
import signal
import socket

import pytest

from lab import LabError, wait_until
from wireguard import Interface, connect, new_keys

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
