"""Members behind a NAT with several public addresses are direct wherever the rule says so (docs/REACH.md).

    control   relay-1   relay-2 (public nodes)
       |         |         |
    ---+---------+---------+--- internet ---+--- easy [eim-apdf, 3 addresses] --- at-easy
                                            +--- hard [apdm-apdf, 3 addresses] --- at-hard
                                            +--- strict [eim-apdf], address [eim-adf], open [eim-eif] --- at-…

"paired": what a host sends leaves by one address. "arbitrary": each mapping has the next one, so that what a
relay sees of a hard NAT is not the address that a peer sees.
"""

import pytest

from lab import wait_until
from reach import host_of
from test_netcheck import World
from traffic import Echo, Pulse

ADDRESSES = 3
DIRECT = (("easy", "strict"), ("easy", "address"), ("hard", "address"), ("hard", "open"))
IN_TIME = 5.0


@pytest.mark.parametrize("pool", ["paired", "arbitrary"])
def test_behind_a_pool_of_addresses_members_are_direct_where_the_rule_says_so(lab, build, measured, pool):
    world = World(lab, build)
    nats = {"easy": "eim-apdf", "hard": "apdm-apdf", "strict": "eim-apdf", "address": "eim-adf", "open": "eim-eif"}
    nodes = {name: world.behind(name, nat=nat, **({"addresses": ADDRESSES, "pool": pool} if name in ("easy", "hard") else {}))
             for name, nat in nats.items()}
    for node in nodes.values():
        node.wait_for_relay(timeout=15)
        node.wait_for(lambda s: s["nat_behaviour"]["age_ms"] is not None, "knows its NAT", 20)

    for one, other in DIRECT:
        alice, bob = nodes[one], nodes[other]
        routers = [node.host.interfaces[0][1].router for node in (alice, bob)]
        for node, peer in ((alice, bob), (bob, alice)):
            node.wait_for_peer(peer.name, timeout=15)
        with Echo(bob.host), Pulse(alice.host, bob.ip) as pulse:
            measured(f"{pool}: {one} with {other}, time to direct", alice.wait_for_path(bob.name, "direct", IN_TIME), IN_TIME)
            bob.wait_for_path(alice.name, "direct", IN_TIME)
            pulse.keeps_going(50)
            seen = wait_until(lambda: bob.peer(alice.name)["endpoint"], 5, "bob sends somewhere")
        assert host_of(seen) in routers[0].addresses, "by an address of the pool"
