"""What a member publishes, in a browser: Chromium, headless, on a machine that is no member.

      control    gate (public node, front door)    outside: chromium
         |          |                                 |
      ---+----------+--- internet 198.51.100.0/24 ----+--------+
                                                               |
                                                    home [port-restricted]
                                                               |
                                                             alice: a web server, at 127.0.0.1 alone

Its first flight is larger than a packet (a post-quantum key share) and has what browsers add to it, of several
connections at once. It finds every name at the gate's address, and trusts the key of alice's server alone.
"""

import base64
import hashlib
import shutil

import pytest

import web
from lab import wait_until
from overlay import Overlay

# What a script has fetched and put in is seen only where the page was really opened.
PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>alice</title><link rel="icon" href="data:,"><p id="said">nothing</p>
<script>fetch("index.html").then(answer => answer.text()).then(text => {
document.getElementById("said").textContent = `${location.protocol} ${location.host} ` + text.length; });</script>
"""


def key_hash(town):
    """Of the server's public key, as Chromium wants it."""
    pem = town.outside.run(["openssl", "x509", "-in", town.web.certificate, "-pubkey", "-noout"]).stdout
    key = base64.b64decode("".join(line for line in pem.splitlines() if not line.startswith("-")))
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def opened(town, url):
    """The page as it stands when its script has run."""
    profile = town.outside.folder / "chromium"
    done = town.outside.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}",
         f"--host-resolver-rules=MAP * {town.relay.host.ip}", "--disable-features=HttpsUpgrades,HttpsFirstBalancedMode",
         f"--ignore-certificate-errors-spki-list={key_hash(town)}", "--virtual-time-budget=10000", "--dump-dom", url],
        timeout=120, check=False)
    return done.stdout


@pytest.fixture
def town(lab, build):
    if not shutil.which("chromium"):
        pytest.skip("chromium is not installed")
    overlay = Overlay(lab, build, members=("alice",)).join_with_front_door("tls_port = 9443\n[frontdoor]\n")
    overlay.web = web.Web(overlay.nodes["alice"], PAGE, address="127.0.0.1")
    overlay.control.admin("host", "add", "alice", "app.demo")
    return overlay


def test_a_browser_opens_what_a_member_behind_a_nat_publishes(town):
    alice = town.nodes["alice"]
    for scheme, port in (("http", "8080"), ("https", "8443")):
        alice.ctl("expose", f"{scheme}://app.demo", port)
        wait_until(lambda: web.curl(town.outside, town.relay.host.ip, town.web, f"{scheme}://app.demo/",  # noqa: B023
                                    check=False).stdout == PAGE, 10, f"{scheme}://app.demo is published")
        page = opened(town, f"{scheme}://app.demo/")
        assert f'<p id="said">{scheme}: app.demo {len(PAGE)}</p>' in page
    assert 'id="said"' not in opened(town, "https://other.demo/"), "nobody publishes it"
