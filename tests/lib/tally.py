"""Counts the results of meson or pytest for ./check.

    tally.py meson TESTLOG_JSON     tally.py pytest JUNIT_XML

Prints "PASSED FAILED SKIPPED"; a file that is not there or not whole counts as one failure.
"""

import json
import sys
import xml.etree.ElementTree as xml

MESON = {"OK": 0, "EXPECTEDFAIL": 0, "SKIP": 2}  # all else: failed


def meson(path):
    counts = [0, 0, 0]
    with open(path) as log:
        for line in log:
            counts[MESON.get(json.loads(line)["result"], 1)] += 1
    return counts


def pytest(path):
    counts = [0, 0, 0]
    for case in xml.parse(path).iter("testcase"):
        kinds = {child.tag for child in case}
        counts[1 if kinds & {"failure", "error"} else 2 if "skipped" in kinds else 0] += 1
    return counts


try:
    print(*{"meson": meson, "pytest": pytest}[sys.argv[1]](sys.argv[2]))
except (OSError, ValueError, KeyError, xml.ParseError) as error:
    print(f"{sys.argv[2]}: {error}", file=sys.stderr)
    print(0, 1, 0)
