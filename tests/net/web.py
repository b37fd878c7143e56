"""A web server on a node, and a visitor from outside."""

import sys
from pathlib import Path

WEB_SERVER = Path(__file__).parent / "web_server.py"


class Web:
    """Serves page in HTTP and HTTPS at an address of the node ("": all), with a certificate of its own for host."""

    def __init__(self, node, page, host="app.demo", http=8080, https=8443, address=""):
        folder = node.host.folder / "web"
        folder.mkdir()
        (folder / "index.html").write_text(page)
        node.host.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                       "-keyout", folder / "key.pem", "-out", folder / "certificate.pem", "-days", "2", "-subj",
                       f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"])
        self.certificate = folder / "certificate.pem"
        self.program = node.host.start([sys.executable, WEB_SERVER, folder, http, https, address],
                                       name="web")
        self.program.wait_for_log("serving")


def curl(host, door_ip, web, url, *options, check=True):
    """curl on a host that finds every name at door_ip."""
    return host.run(["curl", "--silent", "--show-error", "--max-time", "10", "--connect-to", f"::{door_ip}:",
                     "--cacert", web.certificate, *options, url], check=check)
