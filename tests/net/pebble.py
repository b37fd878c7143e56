"""Pebble, Let's Encrypt's ACME server for tests, on a host of a lab: it finds every name at one address.

    ca = Pebble(lab.host("ca", internet), door=relay.host.ip, nonces_refused=30)
    ca.directory, ca.own_ca      for [acme] of p2pnode.conf
    ca.roots()                   file with the CA of what it issues; another one after each start
"""

import json

from lab import wait_until

DNS_PORT, PORT, MANAGEMENT_PORT = 8053, 14000, 15000


class Pebble:
    def __init__(self, host, door, life_s=86400, nonces_refused=0):
        self.host = host
        self.folder = host.folder / "pebble"
        self.folder.mkdir()
        self.own_ca = self.folder / "own.pem"
        self.directory = f"https://{host.ip}:{PORT}/dir"
        key = self.folder / "own.key"
        host.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                  "-out", self.own_ca, "-days", "2", "-subj", "/CN=pebble", "-addext", f"subjectAltName=IP:{host.ip}"])
        config = self.folder / "pebble.json"
        config.write_text(json.dumps({"pebble": {
            "listenAddress": f"0.0.0.0:{PORT}", "managementListenAddress": f"0.0.0.0:{MANAGEMENT_PORT}",
            "certificate": str(self.own_ca), "privateKey": str(key), "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "",
            "externalAccountBindingRequired": False, "certificateValidityPeriod": life_s}}))
        self.names = host.start(["pebble-challtestsrv", "-defaultIPv4", door, "-defaultIPv6", "", "-dns01", f"127.0.0.1:{DNS_PORT}",
                                 "-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:8055"], name="names")
        self.program = host.start(["pebble", "-config", config, "-dnsserver", f"127.0.0.1:{DNS_PORT}"], name="pebble",
                                  env={"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0",
                                       "PEBBLE_WFE_NONCEREJECT": str(nonces_refused)})
        self.wait_until_it_answers()

    def _get(self, port, path):
        return self.host.run(["curl", "--silent", "--show-error", "--max-time", "5", "--cacert", self.own_ca,
                              f"https://{self.host.ip}:{port}{path}"], check=False).stdout

    def wait_until_it_answers(self):
        wait_until(lambda: "newOrder" in self._get(PORT, "/dir"), 10, "pebble answers")

    def roots(self):
        path = self.folder / "roots.pem"
        path.write_text(self._get(MANAGEMENT_PORT, "/roots/0"))
        return path
