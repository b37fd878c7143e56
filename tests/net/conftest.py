"""Fixtures of the net tests: `build` finds the programs, `lab` is a fresh lab for the test.

A failed test keeps its lab's folder and shows the end of each log in it. A program that dies of a
signal or leaves a sanitizer report fails its test even when everything else went well.
"""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from lab import Lab, LabError, tail  # noqa: E402


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
