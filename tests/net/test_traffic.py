"""What measures the overlay measures right: on a plain network, with gaps of known length.

    a --- internet --- b
"""

import time

import pytest

from lab import LabError
from traffic import Echo, Pulse, Transfer


@pytest.fixture
def pair(lab):
    internet = lab.network(v6="2001:db8::/64")
    return lab.host("a", internet), lab.host("b", internet)


def test_a_pulse_is_answered_over_both_families(pair):
    a, b = pair
    with Echo(b), Pulse(a, b.ip) as four, Pulse(a, b.ip6) as six:
        assert four.first_answer() < 0.5
        assert six.first_answer() < 2
        four.keeps_going(20)
        assert four.lost() == 0
        assert four.round_trip() < 0.1


def test_a_pulse_measures_a_gap(pair):
    a, b = pair
    with Echo(b), Pulse(a, b.ip) as pulse:
        pulse.keeps_going(10)
        b.loss(100)
        cut = time.monotonic()
        while time.monotonic() < cut + 0.5:  # the length under test
            time.sleep(0.01)
        b.loss(0)

        assert 0.4 < pulse.gap_after(cut) < 1.0
        pulse.keeps_going(10)
        assert 0.4 < pulse.longest_gap() < 1.0
        assert 25 < pulse.lost(until=cut + 0.5) < 60


def test_a_pulse_measures_a_delay(pair):
    a, b = pair
    b.delay(30)
    with Echo(b), Pulse(a, b.ip) as pulse:
        pulse.keeps_going(30)

        assert 0.055 < pulse.round_trip() < 0.1
        assert pulse.lost() == 0


def test_a_file_crosses_a_slow_wire(pair, tmp_path):
    a, b = pair
    b.delay(5)
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 4096)

    assert Transfer(a, b, b.ip, file).same
    assert Transfer(b, a, a.ip, file).same


def test_a_pulse_without_an_answer_says_so(pair):
    a, b = pair
    with Pulse(a, b.ip) as pulse, pytest.raises(LabError, match="an answer from"):
        pulse.first_answer(0.2)


def test_a_file_arrives_whole(pair, tmp_path):
    a, b = pair
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 4096 * 20)
    seen = []

    transfer = Transfer(a, b, b.ip, file, progress=lambda got, size: seen.append(got / size))

    assert transfer.same
    assert transfer.mbit_per_s > 0
    assert seen[-1] == 1.0
