"""The benchmarks run, and what did not run is said. What they measure is no matter here.

They take the whole machine.
"""

import json
import os
import re
import stat
import subprocess

import pytest

from conftest import ROOT

pytestmark = pytest.mark.alone


def bench(build, script, *words, path=None):
    env = dict(os.environ, P2P_BUILD=str(build.folder))
    if path:
        env["PATH"] = f"{path}:{env['PATH']}"
    return subprocess.run([ROOT / "tests" / "bench" / script, *words], env=env, capture_output=True, text=True,
                          timeout=200, check=False)


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_p2pwg_is_compared_column_by_column(build, tmp_path):
    report = tmp_path / "report.json"
    done = bench(build, "wireguard", "1", "1", "--only", "p2pwg,veth,wireguard-go", "--columns",
                 "tcp1,udp64,ping", "--json", report)

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    for column in ("tcp1", "udp64", "cpu", "ping50", "ping99", "rss"):
        assert found["medians"]["p2pwg"][column] > 0
        assert any(v["column"] == column for v in found["verdicts"])
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[2].startswith("| **p2pwg** |")


def test_a_candidate_that_does_not_start_fails_the_run_and_not_the_others(build, tmp_path):
    program(tmp_path, "gotatun", "exit 3")
    done = bench(build, "wireguard", "1", "1", "--only", "p2pwg,gotatun", "--columns", "tcp1", path=tmp_path)

    assert done.returncode == 1
    assert "FAILED gotatun: cannot be set up" in done.stdout
    assert "| **p2pwg** |" in done.stdout


def test_a_candidate_that_ends_fails_the_run_and_not_the_others(build, tmp_path):
    """The stand-in for gotatun is p2pwg for 6 s; the rounds take longer."""
    program(tmp_path, "gotatun", f"while [ $# -gt 1 ]; do shift; done\nexec timeout 6 {build.program('p2pwg')} -f $1")
    done = bench(build, "wireguard", "7", "1", "--only", "p2pwg,gotatun", "--columns", "tcp1", path=tmp_path)

    assert done.returncode == 1
    assert "FAILED gotatun: has ended" in done.stdout
    assert "| **p2pwg** |" in done.stdout


def test_a_candidate_asked_for_by_name_must_be_there(build, tmp_path):
    done = bench(build, "wireguard", "1", "1", "--only", "p2pwg,nebula", "--columns", "rss")

    assert done.returncode == 1
    assert "SKIPPED nebula: not installed" in done.stdout


def test_the_roofline_has_every_stage(build):
    if not (build.folder / "tests" / "bench" / "bench_tun").exists():
        pytest.skip(f"ninja -C {build.folder} bench")
    done = bench(build, "roofline", "1", "1")

    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("crypto: seal", "crypto: open", "UDP: send", "UDP: receive", "TUN: cut", "**full path**"):
        assert f"| {stage}" in done.stdout
    assert "efficiency" in done.stdout


def test_stun_answers_are_counted_and_none_is_limited(build, tmp_path):
    if not (build.folder / "tests" / "bench" / "bench_stun_flood").exists():
        pytest.skip(f"ninja -C {build.folder} bench")
    report = tmp_path / "report.json"
    done = bench(build, "relay", "1", "1", "--parts", "stun", "--json", report)

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    for column in ("rate", "per_core", "p50", "p99"):
        assert found["medians"]["p2pnode"][column] > 0
    if any("coturn" in line for line in found["skipped"]):
        assert "SKIPPED coturn" in done.stdout
        assert not found["verdicts"]
    else:
        assert [v["asked"] for v in found["verdicts"]] == ["both asked by many", "both asked by few",
                                                           "asked by many, coturn by few"]


def test_a_relay_is_compared_by_what_a_packet_costs_it(build, tmp_path):
    if not (build.folder / "tests" / "bench" / "bench_relay_load").exists():
        pytest.skip(f"ninja -C {build.folder} bench")
    report = tmp_path / "report.json"
    done = bench(build, "relay", "1", "0.2", "--parts", "relay", "--sizes", "1400", "--pairs", "1", "--json", report)

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    measured = {(v["relay"], v["group"]) for v in found["relay"]["values"] if min(v["rate"] + v["cpu"]) > 0}
    expected = {(name, group) for name in ("p2pnode", "floor")
                for group in ("udp-trains", "udp-singles", "tls-trains", "tls-singles")}
    for name, groups in (("coturn", ("udp-trains", "udp-singles")), ("derper", ("tls-trains", "tls-singles")),
                         ("derper-plain", ("tls-trains", "tls-singles"))):
        server = name.split("-")[0]
        if any(server in line for line in found["skipped"]):
            assert f"SKIPPED {server}" in done.stdout
        else:
            expected |= {(name, group) for group in groups}
    assert measured == expected
    assert len(found["relay"]["verdicts"]) >= 2
    paced = [v for v in found["relay"]["values"] if "paced_cpu" in v]
    assert all(v["paced_p50"][0] > 0 and v["paced_lost"][0] < 1 for v in paced)
    ciphers = found["relay"]["tls"]
    assert ciphers["p2pnode"].startswith("TLSv1.3 ") and len(set(ciphers.values())) == 1


def test_an_overlay_through_a_relay_is_compared_with_a_direct_one(build, tmp_path):
    report = tmp_path / "report.json"
    done = bench(build, "relay", "1", "1", "--parts", "overlay", "--json", report)

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())["overlay"]
    assert len(found["values"]) == 2
    assert all(rates["gbits"][0] > 0 for rates in found["values"].values())
    assert len(found["verdicts"]) == 1


def test_webgws_agents_are_measured_warm_and_cold(build):
    done = bench(build, "webgw", "3", "0.2")

    assert done.returncode == 0, done.stdout + done.stderr
    for line in (r"^ *by an agent, HTTPS, .* ratio \d|^SKIPPED: haproxy", r"^RTT from the gate to the agents: p50 \d",
                 r"^warm: p50 .* RTT$", r"^cold: p50 .* RTT$", r"^warm: added .*reached$"):
        assert re.search(line, done.stdout, re.M), done.stdout


def rows_of(text):
    """The tables: name of the row -> its cells."""
    return {m[1]: m[2].split() for m in re.finditer(r"^(\S.*?\S) {2,}(\S.*)$", text, re.M)}


def test_front_doors_are_compared_row_by_row(build):
    done = bench(build, "frontdoor", "--only", "stream,1,64", "1", "0.2")

    assert done.returncode == 0, done.stdout + done.stderr
    names = re.search(r"^ +(direct .*)$", done.stdout, re.M)[1].replace("front door", "front-door").split()
    rows = rows_of(done.stdout)
    for row in ("Gb/s by 1", "Gb/s by 8", "conn/s by 1", "conn/s by 64", "first byte p50", "first byte p99"):
        cells = dict(zip(names, rows[row], strict=True))
        assert float(cells["direct"]) > 0 and float(cells["front-door"]) > 0
    for rival in {"HAProxy", "nginx", "sslh"} - set(names):
        assert re.search(f"^SKIPPED: {rival} ", done.stdout, re.M | re.I)
    if len(names) > 2:
        assert len(re.findall(r"\(wanted: at (?:least|most) ", done.stdout)) >= 6


def test_what_is_behind_a_nat_is_compared_with_what_is_not(build):
    done = bench(build, "frontdoor_agent", "1", "1")  # told to 0.1 Gb/s

    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(done.stdout)
    for row in ("direct", "front door", "member", "agent"):
        assert len(rows[row]) >= 4 and all(float(cell) > 0 for cell in rows[row][:4])
    assert re.search(r"^agent, added by 20 ms: \d", done.stdout, re.M)


def test_a_diglett_tunnel_is_measured_beside_visitors_that_read_nothing(build):
    if not (build.folder / "tests" / "bench" / "bench_diglett").exists():
        pytest.skip(f"ninja -C {build.folder} bench")
    done = subprocess.run([build.folder / "tests" / "bench" / "bench_diglett", "1", "1"], capture_output=True, text=True,
                          timeout=120, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"Gb/s +\d+\.\d\d", done.stdout)) == 7
    beside = re.search(r"^beside one that reads nothing, .*\): (\d+\.\d+) ", done.stdout, re.M)
    assert float(beside[1]) > 0.05  # who waited for it would have nothing
