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
