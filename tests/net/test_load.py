"""p2pwg under load: everything that may happen to a tunnel at once, and floods of bad input.

The long version of the first: tests/net/soak --minutes 10.
"""

import os
from pathlib import Path

import pytest

from conftest import ROOT, Build
from load import Soak, tool


class Sanitized(Build):
    """p2pwg built with ThreadSanitizer ($P2P_BUILD_TSAN, or build-tsan) instead."""

    def __init__(self):
        self.folder = Path(os.environ.get("P2P_BUILD_TSAN", ROOT / "build-tsan")).resolve()


@pytest.fixture(params=["build", "threads"])
def p2pwg(request, build):
    if request.param == "build":
        return build.program("p2pwg")
    return Sanitized().program("p2pwg")


@pytest.mark.slow
def test_flows_stay_whole_and_in_order_whatever_happens_to_the_tunnel(lab, build, p2pwg, measured):
    """Streams byte-exact, nothing out of order, no growth, a clean end: while sessions are renewed,
    peers come and go, one moves, and the network loses packets and then mixes them up."""
    soak = Soak(lab, p2pwg, tool(build, "flows"), tool(build, "wire"))
    soak.calm(14)
    soak.confused(8)
    soak.check_memory()
    soak.end()
