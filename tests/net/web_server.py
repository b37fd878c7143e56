"""A web server in HTTP and HTTPS, for tests: web_server.py FOLDER HTTP_PORT HTTPS_PORT [ADDRESS]."""

import functools
import http.server
import socketserver
import ssl
import sys
import threading


class WebServer(http.server.ThreadingHTTPServer):
    request_queue_size = 1024  # 5 is no crowd

    def server_bind(self):
        # Without its parent's question to the DNS for its own name, which no one answers in a lab.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


folder, http_port, https_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
address = sys.argv[4] if len(sys.argv) > 4 else ""
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
plain = WebServer((address, http_port), handler)
tls = WebServer((address, https_port), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{folder}/certificate.pem", f"{folder}/key.pem")
# The handshake is the visitor's own thread's: one that is slow delays no other.
tls.socket = context.wrap_socket(tls.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=plain.serve_forever, daemon=True).start()
print("serving", flush=True)
tls.serve_forever()
