"""Fixtures of the net tests: `build` finds the programs, `lab` is a fresh lab for the test.

A failed test keeps its lab's folder and shows the end of each log in it. A program that dies of a
signal or leaves a sanitizer report fails its test even when everything else went well.
"""

import os
import signal
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from lab import Lab, LabError, TIMEOUT_SCALE, tail  # noqa: E402


WATCHDOG = 240  # seconds for one test; mark those above 20 as slow, they start first


class Build:
    """The build folder under test: $P2P_BUILD, or build-check."""

    def __init__(self):
        self.folder = Path(os.environ.get("P2P_BUILD", ROOT / "build-check")).resolve()

    def program(self, name):
        path = self.folder / "programs" / name
        if not path.exists():
            pytest.fail(f"{path} is not there: ninja -C {self.folder}", pytrace=False)
        return path


@pytest.fixture(scope="session")
def build():
    return Build()


@pytest.fixture
def lab(request):
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    lab = Lab(request.node.name)
    request.node.lab = lab
    yield lab
    failed = getattr(request.node, "failed", False)
    try:
        lab.close(keep=failed)
    except LabError:
        request.node.failed = True
        raise


@pytest.fixture
def measured(request):
    """measured(what, value, bound=None): noted for the end of the run, and held to its bound."""
    def note(what, value, bound=None):
        limit = f" (at most {bound:g} s)" if bound else ""
        number = f"{value:.3f} s" if "Mbit" not in what else f"{value:.0f}"
        request.node.user_properties.append(("measured", f"{what}: {number}{limit}"))
        assert bound is None or value <= bound * TIMEOUT_SCALE, f"{what}: {number}{limit}"
    return note


@pytest.fixture(autouse=True)
def watchdog():
    """No test may hang the run."""
    def bark(*_):
        raise LabError(f"not done after {WATCHDOG} s")
    signal.signal(signal.SIGALRM, bark)
    signal.alarm(int(WATCHDOG * TIMEOUT_SCALE))
    yield
    signal.alarm(0)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than 20 s; starts first")
    config.addinivalue_line("markers", "alone: compares speeds, measures gaps, or takes the whole machine; nothing runs beside it")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_terminal_summary(terminalreporter):
    notes = [(report.nodeid.partition("::")[2], text)
             for reports in terminalreporter.stats.values() for report in reports
             if getattr(report, "when", None) == "call"
             for kind, text in report.user_properties if kind == "measured"]
    if notes:
        terminalreporter.section("measured")
        for _, text in sorted(notes):
            terminalreporter.line(text)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    lab = getattr(item, "lab", None)
    if not report.failed or lab is None:
        return
    item.failed = True
    lab.end()  # so that the logs are whole
    report.sections.append(("lab", f"kept: {lab.folder}"))
    for log in lab.logs():
        report.sections.append((str(log.relative_to(lab.folder)), tail(log)))
