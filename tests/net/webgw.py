"""An agent of webgw's, from docs/PROTOCOL-webgw.md alone: a WebSocket by hand, and sockets that dial back."""

import base64
import json
import os
import socket
import ssl

from lab import LabError


class Agent:
    """On host, subscribed at server. What it is told is taken one by one: next_visit()."""

    def __init__(self, host, server, port=9080, receive_buffer=None):
        self.host, self.server = host, server
        self.socket = self.unconnected()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((server, port))
        self.socket = self.secured(self.socket)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(f"GET / HTTP/1.1\r\nHost: {'[%s]' % server if ':' in server else server}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        self.bytes = b""
        head = self.read_until(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise LabError(f"no WebSocket: {head!r}")
        self.told, self.n_requests = [], 0

    def unconnected(self):
        end = self.host.socket(socket.AF_INET6 if ":" in self.server else socket.AF_INET, socket.SOCK_STREAM)
        end.settimeout(20)
        return end

    def secured(self, connected):
        return connected

    def more(self):
        got = self.socket.recv(65536)
        if not got:
            raise LabError("the WebSocket has ended")
        self.bytes += got

    def read_until(self, mark):
        while mark not in self.bytes:
            self.more()
        head, self.bytes = self.bytes.split(mark, 1)
        return head

    def read(self, n):
        while len(self.bytes) < n:
            self.more()
        got, self.bytes = self.bytes[:n], self.bytes[n:]
        return got

    def read_message(self):
        while True:
            first, second = self.read(2)
            n = second & 0x7F
            if n == 126:
                n = int.from_bytes(self.read(2), "big")
            payload = self.read(n)
            if first == 0x81:
                return json.loads(payload)

    def send_message(self, text):
        data, mask = text.encode(), os.urandom(4)
        length = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + len(data).to_bytes(2, "big")
        self.socket.sendall(b"\x81" + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def ask(self, method, params):
        self.n_requests += 1
        self.send_message(json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": self.n_requests}))
        while True:
            message = self.read_message()
            if message.get("id") == self.n_requests:
                return message
            self.told.append(message)

    def register(self, host, secret):
        return self.ask("webgw_registerClient", {"host": host, "hex_secret": secret.hex()})

    def next_visit(self):
        message = self.told.pop(0) if self.told else self.read_message()
        if message["method"] != "webgw_registerClient":
            raise LabError(f"told {message}")
        return message["params"]["result"]

    def dial_back(self, visit, pieces=1):
        """The new connection, on which the secret was sent, in so many pieces."""
        caller = self.unconnected()
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        caller.connect((self.server, visit["serverListeningPort"]))
        caller = self.secured(caller)
        secret = bytes.fromhex(visit["secret"])
        size = len(secret) // pieces
        for at in range(0, len(secret), size):
            caller.sendall(secret[at:at + size])
        return caller

    def close(self):
        self.socket.close()


class TlsAgent(Agent):
    """The same within TLS 1.3; certificate: files of a member's, (certificate, key)."""

    def __init__(self, host, server, port=9081, certificate=None, **how):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # Python before 3.11.4 takes an end for a goodbye
        self.context.verify_mode = ssl.CERT_NONE  # whose certificate it is p2pnode's own agent looks at
        if certificate:
            self.context.load_cert_chain(*certificate)
        super().__init__(host, server, port=port, **how)

    def secured(self, connected):
        return self.context.wrap_socket(connected, suppress_ragged_eofs=False)

    def link(self, port):
        """Of the second protocol: a connection to dial back with, in TLS that can end without it."""
        connected = self.unconnected()
        connected.connect((self.server, port))
        return Link(connected)


class Link:
    """TLS of which each direction ends by itself; behind it .socket is read and written."""

    def __init__(self, connected):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["p2p-webgw/2"])
        self.socket, self.incoming, self.outgoing = connected, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self.until_done(self.tls.do_handshake)
        if self.tls.selected_alpn_protocol() != "p2p-webgw/2":
            raise LabError("the node does not know the second protocol")

    def flush(self):
        words = self.outgoing.read()
        if words:
            self.socket.sendall(words)

    def until_done(self, what):
        """Byte by byte: nothing behind TLS's end is taken."""
        while True:
            try:
                return what()
            except ssl.SSLWantReadError:
                self.flush()
                got = self.socket.recv(1)
                if not got:
                    raise LabError("ended without TLS's goodbye")
                self.incoming.write(got)
            finally:
                self.flush()

    def say(self, words):
        self.tls.write(words)
        self.flush()

    def end_tls(self):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass  # the other side's is still to come
        self.flush()

    def read_to_tls_end(self):
        got = b""
        while True:
            try:
                piece = self.until_done(lambda: self.tls.read(65536))
            except ssl.SSLZeroReturnError:
                return got
            if not piece:
                return got
            got += piece
