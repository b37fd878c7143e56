"""What people get wrong, each answered by a message that names what and how to mend it, and nothing
changed.

        control   relay
           |        |
        ---+--------+--- internet --- home [port-restricted] --- alice
"""

import hashlib
import re
import time

import pytest

from lab import wait_until
from overlay import Node, Overlay


@pytest.fixture
def overlay(lab, build):
    """control and a relay that has joined; alice runs and has not."""
    overlay = Overlay(lab, build, ("alice",))
    overlay.relay.join(overlay.control.link())
    return overlay


def contents(folder):
    """Path and sum of every file below a folder."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in folder.rglob("*") if p.is_file()}


def refused(node, link, says):
    """join(link) fails, says why, and leaves no trace."""
    before = contents(node.state)
    done = node.ctl("join", "-", input=link + "\n", check=False)
    assert done.returncode != 0
    assert re.search(says, done.stderr, re.IGNORECASE), done.stderr
    secret = link.partition("#")[2].partition(".")[2]
    assert not secret or secret not in done.stderr, "no secret in a message"
    after = contents(node.state)
    assert after.items() >= before.items(), "what was there is untouched"
    assert after.keys() - before.keys() <= {"identity.key"}, "a key of its own is all that may be new"
    assert node.status()["state"] == "not joined"


# ---- joining -----------------------------------------------------------------------------------

def test_a_wrong_join_key(overlay):
    link = overlay.control.link()
    last = "A" if link[-1] != "A" else "B"
    refused(overlay.nodes["alice"], link[:-3] + last * 3, "join key")


def test_a_join_key_that_was_used(overlay, lab, build):
    link = overlay.control.link()
    overlay.nodes["alice"].join(link)
    other = Node(build, lab.host("other", overlay.internet)).start()

    refused(other, link, "used")
    assert "other" not in overlay.control.names()


def test_an_expired_join_key(overlay):
    link = overlay.control.link("--expires", "1s")
    made = time.monotonic()
    wait_until(lambda: time.monotonic() > made + 1.1, what="the key expires")

    refused(overlay.nodes["alice"], link, "expired")


def test_a_wrong_pin(overlay):
    link = overlay.control.link()
    at = link.index("#") + 1
    wrong = link[:at] + ("A" if link[at] != "A" else "B") + link[at + 1:]
    refused(overlay.nodes["alice"], wrong, "pin|key of control")
    overlay.nodes["alice"].join(link)  # and the join key is as good as before


def test_no_control_at_the_address(overlay):
    link = overlay.control.link().replace(":8443/", ":8444/")
    refused(overlay.nodes["alice"], link, "8444|refused|connect")


@pytest.mark.parametrize("link", ["", "p2p://", "http://198.51.100.1", "p2p://198.51.100.1:8443/#x.y"])
def test_what_is_no_link(overlay, link):
    refused(overlay.nodes["alice"], link, "link")


# ---- state files -------------------------------------------------------------------------------

@pytest.mark.parametrize("file", ["membership.json", "node.key", "identity.key"])
@pytest.mark.parametrize("garbage", [b"", b"\0garbage\xff\n", b"{\"a\": "])
def test_a_corrupt_state_file_is_named_and_left_alone(overlay, file, garbage):
    alice = overlay.nodes["alice"]
    alice.join(overlay.control.link())
    alice.program.stop()
    (alice.state / file).write_bytes(garbage)
    before = contents(alice.state)

    done = alice.host.run(alice.argv, check=False, timeout=10)

    assert done.returncode != 0
    assert str(alice.state / file) in done.stderr + done.stdout
    assert contents(alice.state) == before


@pytest.mark.parametrize("garbage", [b"", b"\0garbage\xff\n", b"{\"a\": "])
def test_a_corrupt_map_cache_is_fetched_anew(overlay, garbage):
    alice = overlay.nodes["alice"]
    alice.join(overlay.control.link())
    alice.program.stop()
    (alice.state / "map.json").write_bytes(garbage)

    alice.program.restart()

    alice.wait_for_peer("relay")
    assert "map.json" in alice.program.output()


# ---- configuration -----------------------------------------------------------------------------

@pytest.mark.parametrize("text, says", [
    ("[node]\nlisten_prot = 1\n", r"p2pnode\.conf:2.*listen_port"),
    ("[node]\n\nlisten_port = many\n", r"p2pnode\.conf:3"),
    ("[node]\nlisten_port = 65536\n", r"p2pnode\.conf:2.*65535"),
    ("[nodes]\nname = a\n", r"p2pnode\.conf:1.*\[?node"),
    ("[public]\nmax_rate = fast\n", r"p2pnode\.conf:2.*max_rate"),
    ("[public]\naddress = example.org\n", r"p2pnode\.conf:2.*address"),
    ("name = a\n", r"p2pnode\.conf:1.*section"),
])
def test_a_wrong_configuration_names_file_line_and_remedy(lab, build, text, says):
    """
    host
    """
    node = Node(build, lab.host("host"))
    node.config.write_text(text)

    done = node.host.run(node.argv, check=False, timeout=10)

    assert done.returncode != 0
    assert re.search(says, done.stderr), done.stderr
    assert not node.state.exists() or not contents(node.state)


def test_a_missing_configuration_file_is_named(lab, build):
    """
    host
    """
    node = Node(build, lab.host("host"))
    node.config.unlink()

    done = node.host.run(node.argv, check=False, timeout=10)

    assert done.returncode != 0
    assert str(node.config) in done.stderr
    assert not node.state.exists() or not contents(node.state)


# ---- control -----------------------------------------------------------------------------------

def test_control_refuses_a_second_init_and_keeps_the_first(overlay, build):
    control = overlay.control
    before = contents(control.state)

    done = control.host.run([build.program("p2pcontrol"), "init", "--name", "other", "--address",
                             control.address, "--state-dir", control.state], check=False)

    assert done.returncode != 0
    assert str(control.state) in done.stderr
    assert contents(control.state).keys() >= before.keys()
    assert overlay.control.names() == {"relay"}


def test_control_names_a_corrupt_store(overlay, build):
    control = overlay.control
    control.program.stop()
    store = next(p for p in control.state.iterdir() if p.suffix in (".db", ".sqlite", ".sqlite3"))
    for side in control.state.glob(store.name + "-*"):
        side.unlink()
    store.write_bytes(b"this is no database" * 100)
    before = contents(control.state)

    done = control.host.run([build.program("p2pcontrol"), "run", "--state-dir", control.state,
                             "--listen", control.address], check=False, timeout=10)

    assert done.returncode != 0
    assert store.name in done.stderr
    assert contents(control.state) == before


def test_a_wrong_admin_token(overlay, build):
    link = overlay.control.admin_link
    wrong = overlay.control.host.folder / "wrong.link"
    text = link.read_text().strip()
    wrong.write_text(text[:-3] + ("AAA" if not text.endswith("AAA") else "BBB") + "\n")
    wrong.chmod(0o600)

    done = overlay.control.host.run([build.program("p2pctl"), "admin", "node", "list"], check=False,
                                    env={"P2P_ADMIN_FILE": wrong})

    assert done.returncode != 0
    assert "token" in done.stderr
    assert text.rpartition(".")[2][:-3] not in done.stderr
