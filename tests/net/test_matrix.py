"""Who is direct with whom: each pair of the nine kinds of NAT once, and the shapes that are no pair.

tests/net/reach.py draws, expects and measures; tests/net/matrix repeats it. The rule: direct if one side
lets in anybody (EIF), or maps always alike and lets in the address that it asked (EIM-ADF), or if both map
always alike (EIM). A hard one with EIM-APDF is direct by a search. All others talk by the relay.
"""

import pytest

import reach

pytestmark = [pytest.mark.alone, pytest.mark.slow]


@pytest.mark.parametrize("a, b, expected", [
    ("eim-apdf", "eim-apdf", "direct"), ("eim-apdf", "adm-adf", "searched"), ("eim-adf", "apdm-apdf", "direct"),
    ("apdm-eif", "apdm-apdf", "direct"), ("adm-adf", "adm-adf", "relay"), (None, "apdm-apdf", "direct"),
    ("apdm-apdf", "eim-apdf", "searched"), ("apdm-apdf", "apdm-adf", "relay"), ("eim-apdf", "adm-eif", "direct")])
def test_the_rule(a, b, expected):
    assert reach.expectation(a, b) == reach.expectation(b, a) == expected


def test_of_45_pairs_31_are_direct_4_are_searched_and_10_left_to_the_relay():
    pairs = [reach.expectation(a, b) for i, a in enumerate(reach.TYPES) for b in reach.TYPES[i:]]
    assert [pairs.count(what) for what in (reach.DIRECT, reach.SEARCHED, reach.RELAYED)] == [31, 4, 10]


def test_two_nats_in_a_row_are_as_bad_as_the_worse():
    assert reach.behind("eim-apdf", "adm-eif") == reach.behind("adm-eif", "eim-apdf") == "adm-apdf"


@pytest.mark.parametrize("n, missed, well", [(4, 1, True), (4, 2, False), (100, 2, True), (100, 3, False)])
def test_searches_find_a_way_98_times_in_a_hundred(n, missed, well):
    results = [reach.Result("pairs", "a with b", "searched", "direct", 0.1, 9.0 if i < missed else 3.0) for i in range(n)]
    assert reach.searched_well(results) == well


def check(results, measured):
    wrong = [f"{r.group}: {r.name}: {r.path}, expected {r.expected}" for r in results if not r.ok]
    assert reach.searched_well(results), "\n".join(wrong)
    assert all(r.ok for r in results if r.expected != reach.SEARCHED), "\n".join(wrong)
    times = reach.direct_times(results)
    measured("first byte, p95", reach.percentile([r.first_byte for r in results], 95))
    measured(f"direct, p50 of {len(times)}", reach.percentile(times, 50), reach.P50)
    measured(f"direct, p95 of {len(times)}", reach.percentile(times, 95), reach.P95)
    for result in results:
        if result.expected == reach.SEARCHED and result.ok:
            measured(f"direct, {result.name}", result.direct, reach.SEARCH_BOUND)


def test_each_pair_of_types_is_direct_exactly_if_it_can_be(lab, build, measured):
    results = reach.measure(reach.Pairs(lab, build).join().pairs)

    assert len(results) == 45 + 9
    check(results, measured)


def test_behind_one_nat_a_hairpin_decides_as_between_two(lab, build, measured):
    check(reach.measure(reach.Hairpins(lab, build).join().pairs), measured)


def test_one_lan_carriers_two_nats_in_a_row_and_no_udp(lab, build, measured):
    check(reach.measure(reach.Shapes(lab, build).join().pairs), measured)
