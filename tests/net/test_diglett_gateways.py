"""docs/examples with the programs that they are for: visitors come by nginx or HAProxy to what runs behind a NAT.

      visitors ── nginx or HAProxy, port 80 ── 127.0.0.1:random ── gate: p2pnode ══ alice's agent ── her servers
                          ▲                                          │
                          └── docs/examples/diglett-… add, remove ◄──┘

The gateways read /etc/nginx and /etc/haproxy, which are folders of the test in gate's mount namespace. traefik is not in Debian:
what its example writes is read, and held against what traefik's documentation says of the file provider.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from lab import wait_until
from test_diglett import PORTS, Gate

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

NGINX = """
pid /run/nginx.pid;
error_log /var/log/nginx/error.log;
daemon off;
events {}
http {
	access_log off;
	server { listen 80 default_server; return 404; }
	include /etc/nginx/diglett.d/*.conf;
}
"""

HAPROXY = """
defaults
	mode http
	timeout connect 5s
	timeout client 20s
	timeout server 20s
frontend web
	bind :80
	use_backend diglett-%[req.hdr(host),field(1,:),lower] if { req.hdr(host) -m found }
"""


class Gateway:
    def __init__(self, gate, name):
        self.gate, self.name = gate, name
        if not shutil.which(name):
            pytest.skip(f"{name} is not installed")
        self.etc = self.folder(f"/etc/{name}")
        self.routes = self.etc / "diglett.d"
        self.routes.mkdir()
        if name == "nginx":
            log = self.folder("/var/log/nginx") / "error.log"
            log.touch(0o640)
            shutil.chown(log, "www-data", "adm")  # as Debian has it: not for who is root without its power
            (self.etc / "nginx.conf").write_text(NGINX)
            argv = ["nginx"]
        else:
            (self.etc / "haproxy.cfg").write_text(HAPROXY)
            argv = ["haproxy", "-W", "-p", "/run/haproxy.pid", "-f", "/etc/haproxy/haproxy.cfg", "-f", "/etc/haproxy/diglett.d"]
        self.program = gate.host.start(argv, name=name)
        wait_until(lambda: self.status() in (404, 503), 10, f"{name} answers")

    def folder(self, path):
        """An empty one in its place, for gate only."""
        made = self.gate.host.folder / path.strip("/").replace("/", "-")
        made.mkdir(mode=0o755)
        self.gate.host.run(["mount", "--bind", made, path])
        return made

    def curl(self, *words):
        return self.gate.host.run(["curl", "-sS", "-m", "5", "-H", "Host: web.apps.demo", *words, "http://127.0.0.1/"],
                                  check=False).stdout

    def status(self):
        return int(self.curl("-o", "/dev/null", "-w", "%{http_code}") or 0)

    def leads_there(self):
        return self.curl() == "hello\n"

    def leads_nowhere(self):
        return self.status() == (404 if self.name == "nginx" else 503)

    def wait_until_all_is_told(self):
        wait_until(lambda: len(self.files()) == len(PORTS) and self.gate.figure("script_waiting") == 0, 10, "all is told")

    def files(self):
        return sorted(file.name for file in self.routes.iterdir() if not file.name.startswith("."))


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_visitors_come_by_the_gateway_while_the_agent_is_there_and_a_crash_leaves_nothing(lab, build, name):
    gate = Gate(lab, build, script=EXAMPLES / f"diglett-{name}")
    gateway = Gateway(gate, name)
    agent = gate.agent()
    wait_until(gateway.leads_there, 20, "the page comes by the gateway")
    gateway.wait_until_all_is_told()
    agent.program.stop()
    wait_until(gateway.leads_nowhere, 20, "the route is gone with the agent")
    wait_until(lambda: gateway.files() == [], 10, "all routes are")
    agent.start()
    wait_until(gateway.leads_there, 20, "the page comes again")
    gateway.wait_until_all_is_told()
    gate.node.kill()
    agent.kill()
    assert len(gateway.files()) == len(PORTS)  # nobody has said that they are to go
    gate.node.start()
    wait_until(lambda: gateway.files() == [], 20, "the next start takes back what the crash has left")
    wait_until(gateway.leads_nowhere, 20, "visitors are led nowhere")
    agent.start()
    wait_until(gateway.leads_there, 20, "the page comes again")
    gate.node.program.stop()
    wait_until(gateway.leads_nowhere, 10, "a node that ends leaves no route")
    assert gateway.files() == []


def run_traefik_example(folder, *words):
    text = (EXAMPLES / "diglett-traefik").read_text()
    assert "\nfolder=/etc/traefik/dynamic\n" in text
    subprocess.run(["sh", "-c", text.replace("folder=/etc/traefik/dynamic", f"folder={folder}"), "diglett-traefik", *words],
                   check=True, env={"PATH": "/usr/bin:/bin"})


def test_what_the_example_for_traefik_writes_is_what_its_file_provider_reads(tmp_path):
    yaml = pytest.importorskip("yaml")
    run_traefik_example(tmp_path, "add", "app.apps.demo", "127.0.0.1", "40001")
    run_traefik_example(tmp_path, "add", "b-2.demo", "127.0.0.1", "40002", "some extra; $(false)")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["diglett-app.apps.demo.yml", "diglett-b-2.demo.yml"]
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in files)  # traefik need not be root
    for file, name, port in zip(files, ("app.apps.demo", "b-2.demo"), (40001, 40002)):
        http = yaml.safe_load(file.read_text())["http"]
        assert set(http) == {"routers", "services"}
        [(service, of_service)] = http["services"].items()
        [(_, router)] = http["routers"].items()
        assert router == {"rule": f"Host(`{name}`)", "entryPoints": ["websecure"], "service": service,
                          "tls": {"certResolver": "letsencrypt"}}
        assert of_service == {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{port}"}]}}
    run_traefik_example(tmp_path, "remove", "app.apps.demo")
    run_traefik_example(tmp_path, "remove", "app.apps.demo")  # as after a crash
    assert [file.name for file in tmp_path.iterdir()] == ["diglett-b-2.demo.yml"]
