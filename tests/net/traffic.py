"""Traffic between hosts of a lab, measured: a UDP pulse with its gaps, and a file over TCP.

The sockets live in the hosts' namespaces, the threads in this process; so one clock measures all.
"""

import hashlib
import socket
import struct
import threading
import time

from lab import LabError, TIMEOUT_SCALE, wait_until

ECHO_PORT = 7


def _family(ip):
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


class Echo:
    """Sends every datagram back. On all addresses of the host, also those it gets later."""

    def __init__(self, host, port=ECHO_PORT):
        self.socket = host.socket(socket.AF_INET6)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(("::", port))
        self.socket.settimeout(0.2)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._ended.is_set():
            try:
                data, sender = self.socket.recvfrom(2048)
                self.socket.sendto(data, sender)
            except OSError:
                continue

    def close(self):
        self._ended.set()
        self._thread.join()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Pulse:
    """A datagram to an Echo every `interval` seconds; when each was sent and answered."""

    def __init__(self, host, ip, interval=0.01, port=ECHO_PORT, size=64):
        self.socket = self._open(host, ip)
        self.socket.settimeout(0.1)
        self.to, self.interval, self.padding = (ip, port), interval, bytes(size - 8)
        self.sent, self.answered = {}, {}
        self._ended = threading.Event()
        self.begin = time.monotonic()
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    HEADER = b""

    def _open(self, host, ip):
        return host.socket(_family(ip))

    def _send(self):
        number, due = 0, time.monotonic()
        while not self._ended.is_set():
            self.sent[number] = time.monotonic()
            try:
                self.socket.sendto(self.HEADER + struct.pack("!Q", number) + self.padding, self.to)
            except OSError:
                pass  # no route yet, or an ICMP error of an earlier one: counts as not answered
            number += 1
            due += self.interval
            self._ended.wait(max(0.0, due - time.monotonic()))

    def _receive(self):
        while not self._ended.is_set():
            try:
                data = self.socket.recv(2048)[len(self.HEADER):]
            except OSError:
                continue
            self.answered.setdefault(struct.unpack("!Q", data[:8])[0], time.monotonic())

    def first_answer(self, timeout=10.0):
        """Seconds from the first datagram to the first answer."""
        wait_until(lambda: self.answered, timeout, f"an answer from {self.to[0]}", 0.001)
        return min(list(self.answered.values())) - self.begin

    def gap_after(self, moment, timeout=10.0):
        """Seconds from the moment to the first answer to a datagram sent after it."""
        def answers():
            return [at for number, at in list(self.answered.items()) if self.sent[number] >= moment]
        wait_until(answers, timeout, f"an answer from {self.to[0]} again", 0.001)
        return min(answers()) - moment

    def keeps_going(self, answers, timeout=10.0):
        """Waits for so many more answers."""
        goal = len(self.answered) + answers
        wait_until(lambda: len(self.answered) >= goal, timeout,
                   lambda: f"{answers} answers more from {self.to[0]} "
                           f"({goal - len(self.answered)} missing)")

    def lost(self, since=0.0, until=None):
        """How many sent in [since, until) have no answer. The last 0.3 s are still on their way."""
        until = until or time.monotonic() - 0.3
        return sum(1 for number, at in list(self.sent.items())
                   if since <= at < until and number not in self.answered)

    def longest_gap(self, since=0.0):
        """The longest time between two answers."""
        times = sorted(at for at in list(self.answered.values()) if at >= since)
        return max((b - a for a, b in zip(times, times[1:])), default=0.0)

    def round_trip(self):
        """Median seconds, from sending to the answer."""
        times = sorted(at - self.sent[number] for number, at in list(self.answered.items()))
        return times[len(times) // 2] if times else None

    def close(self):
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Stream:
    """A datagram from one host to another every `interval` seconds, and nothing back: when they arrived."""

    def __init__(self, source, target, ip, interval=0.01, port=ECHO_PORT + 2, size=64):
        self.sink = target.socket(_family(ip))
        self.sink.bind((ip, port))
        self.sink.settimeout(0.1)
        self.socket = source.socket(_family(ip))
        self.to, self.interval, self.arrivals, self.bytes = (ip, port), interval, [], bytes(size)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self):
        while not self._ended.wait(self.interval):
            try:
                self.socket.sendto(self.bytes, self.to)
            except OSError:
                pass

    def _receive(self):
        while not self._ended.is_set():
            try:
                self.sink.recv(2048)
                self.arrivals.append(time.monotonic())
            except OSError:
                continue

    def keeps_going(self, arrivals, timeout=10.0):
        """Waits for so many more."""
        goal = len(self.arrivals) + arrivals
        wait_until(lambda: len(self.arrivals) >= goal, timeout, lambda: f"{arrivals} more arrive at {self.to[0]}")

    def longest_gap(self, since):
        times = [at for at in list(self.arrivals) if at >= since]
        return max((b - a for a, b in zip(times, times[1:])), default=0.0)

    def close(self):
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.socket.close()
        self.sink.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class PingPulse(Pulse):
    """The same with ICMP echoes (IPv4): every host answers them."""

    HEADER = struct.pack("!BBHHH", 8, 0, 0, 0, 0)  # the kernel fills in identifier and checksum

    def _open(self, host, ip):
        host.sysctl("net.ipv4.ping_group_range", "0 0")
        return host.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


class Transfer:
    """A file over TCP; .seconds and .mbit_per_s when done, .same when both SHA-256 sums are equal."""

    PORT = 9000

    def __init__(self, source, target, ip, path, progress=None, timeout=60.0):
        self.size = path.stat().st_size
        self.received = 0
        self.progress = progress
        self._sum = hashlib.sha256()
        with target.socket(_family(ip), socket.SOCK_STREAM) as listener, \
                source.socket(_family(ip), socket.SOCK_STREAM) as stream, open(path, "rb") as file:
            listener.settimeout(timeout * TIMEOUT_SCALE)
            listener.bind((ip, self.PORT))
            listener.listen()
            stream.settimeout(timeout * TIMEOUT_SCALE)
            stream.connect((ip, self.PORT))
            served, _ = listener.accept()
            begin = time.monotonic()
            sending = threading.Thread(target=self._send, args=(stream, file), daemon=True)
            sending.start()
            self._receive(served, timeout * TIMEOUT_SCALE)
            self.seconds = time.monotonic() - begin
            sending.join()
        self.sha256 = self._sum.hexdigest()
        with open(path, "rb") as file:
            self.same = self.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
        self.mbit_per_s = self.received * 8 / self.seconds / 1e6

    @staticmethod
    def _send(stream, file):
        try:
            stream.sendfile(file)
            stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the receiver tells what is missing

    def _receive(self, served, timeout):
        served.settimeout(timeout)
        buffer = bytearray(1 << 18)
        view = memoryview(buffer)
        with served:
            while n := served.recv_into(buffer):
                self._sum.update(view[:n])
                self.received += n
                if self.progress:
                    self.progress(self.received, self.size)
        if self.received != self.size:
            raise LabError(f"{self.received} of {self.size} bytes arrived")
