"""The programs of the overlay in a lab: a Control and its Nodes, with verbs for what people do.

    control = Control(build, lab.host("control", internet))
    control.start()
    alice = Node(build, lab.host("alice", home.inside))
    alice.start()
    alice.join(control.link())
    alice.peer("bob")["path"]
"""

import json
import os
import re
import socket
import time

from lab import LabError, wait_until

CONTROL_PORT = 8443
LOG_LEVEL = os.environ.get("P2P_LAB_LOG_LEVEL", "info")
LINK = re.compile(r"p2p://\S+")


class Control:
    """p2pcontrol on a host. init() made its store when the object exists."""

    def __init__(self, build, host, network="lab", port=CONTROL_PORT):
        self.build, self.host, self.port = build, host, port
        self.state = host.folder / "p2pcontrol"
        self.address = f"{host.ip}:{port}"
        self.admin_link = self.state / "admin.link"
        self.program = None
        done = host.run([build.program("p2pcontrol"), "init", "--name", network,
                         "--address", self.address, "--state-dir", self.state])
        self.first_link = LINK.search(done.stdout)[0]

    def start(self):
        """Returns when it accepts connections."""
        if self.program is None:
            self.program = self.host.start(
                [self.build.program("p2pcontrol"), "run", "--state-dir", self.state,
                 "--listen", self.address], name="p2pcontrol")
        else:
            self.program.restart()
        wait_until(self.listens, 10, "p2pcontrol listens")
        return self

    def listens(self):
        if not self.program.running:
            raise LabError(f"p2pcontrol ended\n{self.program.tail()}")
        with self.host.socket(kind=socket.SOCK_STREAM) as s:
            s.settimeout(1)
            return s.connect_ex((self.host.ip, self.port)) == 0

    def kill(self):
        self.program.kill()

    def admin(self, *words, check=True):
        """p2pctl admin WORDS --json, decoded."""
        done = self.host.run([self.build.program("p2pctl"), "admin", *words, "--json"], check=check,
                             env={"P2P_ADMIN_FILE": self.admin_link})
        return json.loads(done.stdout) if check else done

    def link(self, *options):
        """A new join link; one-off unless the options say otherwise. Public nodes become relays by it."""
        return self.admin("key", "create", "--relay", *options)["link"]

    def names(self):
        return {node["name"] for node in self.admin("node", "list")["nodes"]}


class Node:
    """p2pnode on a host, with files of its own below the host's folder."""

    def __init__(self, build, host, name=None, public=False, config="", launcher=()):
        self.build, self.host, self.name, self.launcher = build, host, name or host.name, launcher
        self.state = host.folder / "state"
        self.socket_path = host.folder / "p2pnode.sock"
        self.config = host.folder / "p2pnode.conf"
        text = f"[node]\nname = {self.name}\n{config}"
        if public:
            text += f"[public]\naddress = {host.ip}\n"
        self.config.write_text(text)
        self.program = None

    @property
    def argv(self):
        return [*self.launcher, self.build.program("p2pnode"), "--config", self.config, "--state-dir", self.state,
                "--socket", self.socket_path, "--log-level", LOG_LEVEL]

    def start(self):
        """Returns when the local API answers."""
        if self.program is None:
            self.program = self.host.start(self.argv, name="p2pnode")
        else:
            self.program.restart()
        wait_until(self.answers, 10, f"{self.name}: p2pnode answers on its socket")
        return self

    def answers(self):
        if not self.program.running:
            raise LabError(f"{self.name}: p2pnode ended\n{self.program.tail()}")
        try:
            return self.status()
        except OSError:
            return None

    def kill(self):
        self.program.kill()

    # ---- the local API and p2pctl

    def rpc(self, method, params=None, timeout=15.0):
        """One call on the local API; its result, or LabError with the error it answered."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(timeout)
            s.connect(str(self.socket_path))
            s.sendall(json.dumps(request).encode() + b"\n")
            with s.makefile("rb") as lines:
                answer = json.loads(lines.readline() or b'{"error": "closed"}')
        if "result" not in answer:
            raise LabError(f"{self.name}: {method}: {answer.get('error')}")
        return answer["result"]

    def ctl(self, *words, check=True, input=None, timeout=30.0):
        """p2pctl WORDS; .stdout, .stderr, .returncode."""
        return self.host.run([self.build.program("p2pctl"), "--socket", self.socket_path, *words],
                             check=check, input=input, timeout=timeout)

    def status(self):
        return self.rpc("node.status")

    def join(self, link):
        """p2pctl join, with the link on standard input; returns when the node is a member."""
        self.ctl("join", "-", input=link + "\n")
        return self.wait_for(lambda s: s["state"] == "running" and s["self"]["ip4"], "member")

    def wait_for(self, condition, what, timeout=10.0):
        """The first status for which condition(status) holds."""
        last = {}

        def holds():
            last.update(self.answers() or {})
            return last if last and condition(last) else None
        return wait_until(holds, timeout, lambda: f"{self.name}: {what}; status {json.dumps(last)}")

    # ---- what the status says

    @property
    def ip(self):
        return self.status()["self"]["ip4"]

    @property
    def ip6(self):
        return self.status()["self"]["ip6"]

    def peers(self):
        return {peer["name"]: peer for peer in self.status()["peers"]}

    def peer(self, name):
        return self.peers()[name]

    def wait_for_peer(self, name, condition=lambda peer: True, what="is known", timeout=10.0):
        """The peer's entry once it is there and condition(entry) holds."""
        def found(status):
            entry = next((p for p in status["peers"] if p["name"] == name), None)
            return entry if entry and condition(entry) else None
        return found(self.wait_for(found, f"{name} {what}", timeout))

    def wait_for_path(self, name, path, timeout=10.0):
        """Waits until the path to a peer is "direct" or "relay"; seconds it took from this call."""
        begin = time.monotonic()
        self.wait_for_peer(name, lambda peer: peer["path"] == path, f"by {path}", timeout)
        return time.monotonic() - begin

    def home(self):
        """The name of the home relay, or None while it is not connected."""
        return next((r["name"] for r in self.status()["relays"] if r["home"] and r["connected"]), None)

    def wait_for_relay(self, name=None, timeout=10.0):
        """Until it is connected to its home relay, the one of that name if one is given."""
        return wait_until(lambda: self.home() == name if name else self.home(), timeout,
                          lambda: f"{self.name}: home relay {name or 'connected'}; "
                                  f"{json.dumps(self.status()['relays'])}")

    def cached_peers(self):
        """Names of the peers in the map on disk."""
        try:
            return {peer["name"] for peer in json.loads((self.state / "map.json").read_text())["peers"]}
        except FileNotFoundError:
            return set()

    def wait_for_control(self, timeout=15.0):
        return self.wait_for(lambda s: s["control"]["connected"], "is connected to control", timeout)

    def dropped(self):
        """Sum of all counted drops."""
        return sum(int(n) for n in self.status()["drops"].values())

    def identity(self):
        """What must survive a crash."""
        status = self.status()["self"]
        return {key: status[key] for key in ("id", "name", "ip4", "ip6", "node_key")}


class Overlay:
    """The network as drawn, all members joined:

        control   relay (public node)
           |        |
        ---+--------+------- internet 198.51.100.0/24 -----+-----------------+
                    |                                      |                 |
              home [port-restricted]          office [port-restricted]   cafe [symmetric]
                    |                                      |                 |
                  alice                                   bob              carol
    """

    NATS = {"alice": ("home", "port-restricted"), "bob": ("office", "port-restricted"),
            "carol": ("cafe", "symmetric")}

    def __init__(self, lab, build, members=("alice", "bob"), config=None, launcher=(), nats=None, internet=()):
        """config: lines for the [node] section, by the member's name. launcher: what starts p2pnode.
        nats: a router's options (Lab.router) in place of those above, by the member's name. internet: its addresses."""
        self.lab, self.build, self.config, self.launcher = lab, build, config or {}, launcher
        self.nats = nats or {}
        self.internet = lab.network("internet", *internet)
        self.control = Control(build, lab.host("control", self.internet)).start()
        self.relay = Node(build, lab.host("relay", self.internet), public=True, launcher=launcher).start()
        self.routers, self.nodes = {}, {"relay": self.relay}
        for name in members:
            self.add(name)

    def add(self, name):
        """A started node that has not joined."""
        router, nat = self.NATS[name]
        self.routers[name] = self.lab.router(router, self.internet, **{"nat": nat, **self.nats.get(name, {})})
        self.nodes[name] = Node(self.build, self.lab.host(name, self.routers[name].inside),
                                config=self.config.get(name, ""), launcher=self.launcher).start()
        return self.nodes[name]

    def join(self):
        """All join by link, the relay first; returns when all know each other and the relay."""
        for node in self.nodes.values():
            node.join(self.control.link())
        self.wait_until_known()
        return self

    def join_with_front_door(self, config="[frontdoor]\n"):
        """As join(); the relay's configuration ends with this, and visitors come from the host `outside`."""
        self.relay.config.write_text(self.relay.config.read_text() + config)
        self.relay.kill()
        self.relay.start()
        self.outside = self.lab.host("outside", self.internet)
        return self.join()

    def wait_until_known(self, timeout=15.0):
        for node in self.nodes.values():
            for other in self.nodes.values():
                if other is not node:
                    node.wait_for_peer(other.name, timeout=timeout)
            if node is not self.relay:
                node.wait_for_relay(timeout=timeout)
