"""TLS that ends at a member behind its NAT: with certificates from files, and by ACME.

      control    relay (public node, front door)    outside
         |          |                                  |
      ---+----------+---- internet 198.51.100.0/24 ----+--------+
                                                                |
                                                     home [port-restricted]
                                                                |
                                                              alice: a web server in plain, at 127.0.0.1 alone

What becomes of handshakes, ends and bounds, tests/unit/node/test_terminator.c has.
"""

import hashlib
import json
import os
import socket
import ssl
import time

import pytest

import web
from lab import wait_until
from overlay import Overlay
from pebble import Pebble

PAGE = "hello from alice, in plain\n"


@pytest.fixture
def town(lab, build):
    """The network as drawn; alice is granted all names below demo."""
    overlay = Overlay(lab, build, members=("alice",)).join_with_front_door()
    overlay.web = web.Web(overlay.nodes["alice"], PAGE, address="127.0.0.1")
    overlay.own_ca = overlay.web.certificate
    overlay.control.admin("host", "add", "alice", "*.demo")
    return overlay


def curl(town, url, *options, check=True):
    return web.curl(town.outside, town.relay.host.ip, town.web, url, *options, check=check)


def exposure(node, host):
    return {one["host"]: one for one in json.loads(node.ctl("exposures", "--json").stdout)["exposures"]}[host]


def make_certificate(town, host, folder, days):
    """A new one, where the last one was."""
    alice = town.nodes["alice"].host
    alice.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-keyout", folder / "next.key", "-out", folder / "next.pem", "-days", str(days), "-subj", f"/CN={host}",
               "-addext", f"subjectAltName=DNS:{host}"])
    for name in ("key", "pem"):
        os.rename(folder / f"next.{name}", folder / f"app.{name}")


def test_tls_ends_at_the_member_with_a_certificate_of_its_own(town):
    alice = town.nodes["alice"]
    folder = alice.host.folder / "web"
    make_certificate(town, "app.demo", folder, 2)
    town.web.certificate = folder / "app.pem"
    much = os.urandom(5 << 20)
    (folder / "much").write_bytes(much)

    alice.ctl("expose", "app.demo", "8080", "--tls", "terminate", "--certificate", str(folder / "app.pem"), "--key",
              str(folder / "app.key"))
    wait_until(lambda: exposure(alice, "app.demo")["state"] == "live", 15, lambda: exposure(alice, "app.demo"))
    wait_until(lambda: curl(town, "https://app.demo/", check=False).stdout == PAGE, 10, "HTTPS, that ends at alice")
    assert curl(town, "http://app.demo/").stdout == PAGE
    fetched = town.outside.folder / "much"
    curl(town, "https://app.demo/much", "--output", str(fetched))
    assert hashlib.sha256(fetched.read_bytes()).digest() == hashlib.sha256(much).digest()
    assert curl(town, "https://app.demo/", "--http2", "--output", "/dev/null", "--write-out", "%{http_version}").stdout != "2"
    said = exposure(alice, "app.demo")
    assert said["certificate"]["state"] == "valid" and int(said["tls_handshakes"]) >= 3 and said["tls"] == "terminate"

    # Another certificate is taken while visitors come.
    before = said["certificate"]["valid_until"]
    make_certificate(town, "app.demo", folder, 9)
    wait_until(lambda: exposure(alice, "app.demo")["certificate"]["valid_until"] != before, 20, "the new one is taken")
    assert curl(town, "https://app.demo/").stdout == PAGE

    # It is there again after a restart.
    alice.kill()
    alice.start()
    wait_until(lambda: curl(town, "https://app.demo/", check=False).stdout == PAGE, 20, "served again")


# ---- certificates by ACME


def order_from(town, ca, challenge="tls-alpn-01", more="agree_terms = yes\n"):
    """alice gets her certificates there from now on."""
    alice = town.nodes["alice"]
    alice.config.write_text(f"{alice.config.read_text()}[acme]\ndirectory = {ca.directory}\nca_file = {ca.own_ca}\n"
                            f"challenge = {challenge}\nretry = 1\n{more}")
    alice.kill()
    alice.start()
    town.web.certificate = ca.roots()


def certificate(town, host):
    return exposure(town.nodes["alice"], host)["certificate"]


def wait_for_page(town, url, timeout=30):
    wait_until(lambda: curl(town, url, check=False).stdout == PAGE, timeout, lambda: exposure(town.nodes["alice"], "app.demo"))


@pytest.mark.slow
@pytest.mark.parametrize("challenge", ["tls-alpn-01", "http-01"])
def test_certificate_is_got_by_each_challenge_through_the_front_door(town, challenge):
    ca = Pebble(town.lab.host("ca", town.internet), door=town.relay.host.ip, nonces_refused=25)
    order_from(town, ca, challenge)
    alice = town.nodes["alice"]
    in_the_way = alice.state / "acme" / "app.demo.pem"
    in_the_way.mkdir(parents=True)  # the certificate cannot be written: it is shown all the same, and no other is ordered
    in_the_way.parent.chmod(0o700)
    alice.ctl("expose", "app.demo", "8080", "--tls", "acme", "--allow", town.outside.ip)  # the ACME server is not on it
    wait_for_page(town, "https://app.demo/")
    assert curl(town, "http://app.demo/").stdout == PAGE
    for url in ("http://app.demo/", "https://app.demo/"):
        assert web.curl(ca.host, town.relay.host.ip, town.web, url, check=False).returncode != 0
    said = exposure(alice, "app.demo")
    assert said["state"] == "live" and said["certificate"]["state"] == "valid" and int(said["acme_challenges"]) >= 1
    acme = said["certificate"]["acme"]
    assert acme["state"] == "done" and acme["challenge"] == challenge and "renewal" in acme and "last_error" not in acme

    in_the_way.rmdir()
    wait_until(in_the_way.is_file, 10, "it is written once it can be")
    assert certificate(town, "app.demo")["valid_until"] == said["certificate"]["valid_until"]
    assert certificate(town, "app.demo")["acme"]["renewal"] == acme["renewal"]

    folder = alice.state / "acme"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {"account.key": 0o600, "app.demo.pem": 0o600}

    # It is kept: nothing is ordered after a restart, also with the server away.
    ca.program.kill()
    alice.kill()
    alice.start()
    wait_for_page(town, "https://app.demo/", 20)


@pytest.mark.slow
def test_renewal_is_seen_by_who_comes_and_not_by_who_is_there(town):
    ca = Pebble(town.lab.host("ca", town.internet), door=town.relay.host.ip, life_s=20)
    order_from(town, ca)
    town.nodes["alice"].ctl("expose", "app.demo", "8080", "--tls", "acme")
    wait_for_page(town, "https://app.demo/")
    with town.outside.socket(kind=socket.SOCK_STREAM) as plain:
        plain.settimeout(10)
        plain.connect((town.relay.host.ip, 443))
        with ssl.create_default_context(cafile=ca.roots()).wrap_socket(plain, server_hostname="app.demo") as visitor:
            visitor.sendall(b"GET / HTTP/1.0\r\n")
            before, first = certificate(town, "app.demo"), visitor.getpeercert()
            n = 0
            while certificate(town, "app.demo")["valid_until"] == before["valid_until"]:
                assert curl(town, "https://app.demo/").stdout == PAGE  # verified each time
                n += 1
                assert n < 500
            visitor.sendall(b"\r\n")
            got = b""
            while piece := visitor.recv(4096):
                got += piece
            assert got.endswith(PAGE.encode())
    assert n > 3
    with town.outside.socket(kind=socket.SOCK_STREAM) as plain:
        plain.settimeout(10)
        plain.connect((town.relay.host.ip, 443))
        with ssl.create_default_context(cafile=ca.roots()).wrap_socket(plain, server_hostname="app.demo") as visitor:
            assert visitor.getpeercert()["serialNumber"] != first["serialNumber"]


@pytest.mark.slow
def test_server_that_is_away_or_false_is_asked_again_later(town):
    ca = Pebble(town.lab.host("ca", town.internet), door=town.relay.host.ip)
    alice = town.nodes["alice"]

    def acme():
        return certificate(town, "app.demo").get("acme", {})

    # Nothing is asked before the terms are agreed to.
    asked = ca.program.output().count("GET /dir")
    alice.ctl("expose", "app.demo", "8080", "--tls", "acme")
    order_from(town, ca, more="agree_terms = no\n")
    wait_until(lambda: acme()["state"] == "not asked", 10, acme)
    wait_until(lambda: exposure(alice, "app.demo")["state"] == "no certificate", 10, lambda: exposure(alice, "app.demo"))
    assert "agree_terms" in exposure(alice, "app.demo")["why"]
    assert ca.program.output().count("GET /dir") == asked

    # Nor is anything told to who is not the server.
    text = alice.config.read_text()
    alice.config.write_text(text.replace("agree_terms = no", "agree_terms = yes").replace(str(ca.own_ca), str(town.own_ca)))
    alice.kill()
    alice.start()
    wait_until(lambda: "certificate refused" in acme().get("last_error", ""), 15, acme)
    assert ca.program.output().count("GET /dir") == asked

    # Away: it is tried again, ever more seldom, and goes well once the server is there.
    ca.program.kill()
    alice.config.write_text(text.replace("agree_terms = no", "agree_terms = yes"))
    alice.kill()
    wait = alice.state / "acme" / "app.demo.wait"
    wait.write_text(f"{int(time.time()) + 3600} https://another.example/dir\n")
    alice.start()
    wait_until(lambda: "is not reached" in acme().get("last_error", ""), 15, acme)  # another server's wait is not this one's
    alice.kill()
    wait.write_text(f"{int(time.time()) + 4} {ca.directory}\n")  # as if the server had said so before
    alice.start()
    assert "not to be asked sooner" in acme()["last_error"] and acme()["state"] == "failed"
    wait_until(lambda: acme().get("failures", 0) >= 2, 15, acme)
    assert "is not reached" in acme()["last_error"] and acme()["next_try"]
    assert "next try at" in alice.ctl("exposures").stdout
    ca.program.restart()
    ca.wait_until_it_answers()
    town.web.certificate = ca.roots()
    wait_for_page(town, "https://app.demo/")
    assert not (alice.state / "acme" / "app.demo.wait").exists()
    assert acme()["failures"] == 0 and "last_error" not in acme()
    assert f"until {certificate(town, 'app.demo')['valid_until'][:10]}" in alice.ctl("exposures").stdout
