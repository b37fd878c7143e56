"""Counts the results of meson or pytest for ./check.

    tally.py meson TESTLOG_JSON     tally.py {pytest,failed,again} JUNIT_XML

meson and pytest print "PASSED FAILED SKIPPED"; a file that is not there or not whole counts as one failure.
failed prints the tests that failed, as pytest takes their names, one a line; again those that may be run again: all,
or none if a program crashed or a sanitizer spoke in one of them. The file is of junit_family=xunit1.
"""

import json
import re
import sys
import xml.etree.ElementTree as xml

CRASH = re.compile(r"\w+Sanitizer: |: runtime error: |Assertion .* failed|stack smashing detected|free\(\): invalid|died of")
MESON = {"OK": 0, "EXPECTEDFAIL": 0, "SKIP": 2}  # all else: failed


def meson(path):
    counts = [0, 0, 0]
    with open(path) as log:
        for line in log:
            counts[MESON.get(json.loads(line)["result"], 1)] += 1
    return counts


def result(case):
    kinds = {child.tag for child in case}
    return 1 if kinds & {"failure", "error"} else 2 if "skipped" in kinds else 0


def name(case):
    return f"{case.get('file')}::{case.get('name')}"


def pytest(path):
    """A test counts once, also if it failed and its end did as well."""
    results = {}
    for case in xml.parse(path).iter("testcase"):
        results[name(case)] = max(results.get(name(case), 0), result(case), key=(0, 2, 1).index)
    return [list(results.values()).count(i) for i in range(3)]


def failed(path):
    return [case for case in xml.parse(path).iter("testcase") if result(case) == 1]


def again(path):
    cases = failed(path)
    return [] if any(CRASH.search(xml.tostring(case, encoding="unicode")) for case in cases) else cases


try:
    if sys.argv[1] in ("failed", "again"):
        cases = {"failed": failed, "again": again}[sys.argv[1]](sys.argv[2])
        sys.stdout.writelines(dict.fromkeys(f"{name(case)}\n" for case in cases))
    else:
        print(*{"meson": meson, "pytest": pytest}[sys.argv[1]](sys.argv[2]))
except (OSError, ValueError, KeyError, xml.ParseError) as error:
    print(f"{sys.argv[2]}: {error}", file=sys.stderr)
    print(0, 1, 0)
