"""Who is in the map: a member leaves it by removal or expiry, never because its connection broke.

The topology is that of overlay.Overlay, without the NATs of those who are not named here.

    control   relay (public node)
       |        |
    ---+--------+--- internet ---+---- home [port-restricted] --- alice
                                 +---- office [port-restricted] --- bob
"""

from overlay import Overlay


def test_a_member_whose_connection_broke_stays_an_ephemeral_one_expires(lab, build, measured):
    overlay = Overlay(lab, build, ())
    overlay.relay.join(overlay.control.link())
    alice = overlay.add("alice")
    alice.join(overlay.control.link())
    bob = overlay.add("bob")
    bob.join(overlay.control.link("--ephemeral", "3s"))
    carol = overlay.add("carol")
    carol.join(overlay.control.link())
    for name in ("bob", "carol"):
        alice.wait_for_peer(name, lambda peer: peer["online"], "is online")

    bob.kill()
    carol.kill()

    alice.wait_for(lambda s: "bob" not in {p["name"] for p in s["peers"]}, "bob has expired", 30)
    alice.wait_for_peer("carol", lambda peer: not peer["online"], "is offline, and still there", 30)
    assert overlay.control.names() == {"relay", "alice", "carol"}


def test_an_ephemeral_member_that_is_there_does_not_expire(lab, build):
    overlay = Overlay(lab, build, ())
    overlay.relay.join(overlay.control.link())
    alice = overlay.add("alice")
    alice.join(overlay.control.link())
    short = overlay.add("carol")
    short.join(overlay.control.link("--ephemeral", "1s"))
    bob = overlay.add("bob")
    bob.join(overlay.control.link("--ephemeral", "2s"))
    alice.wait_for_peer("bob", lambda peer: peer["online"], "is online")

    short.kill()  # its expiry shows that more than one second has passed for the others
    bob.kill()
    bob.start()
    bob.wait_for_control()
    alice.wait_for(lambda s: "carol" not in {p["name"] for p in s["peers"]}, "carol has expired", 30)

    assert "bob" in alice.peers()
