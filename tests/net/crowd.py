"""A crowd of visitors: crowd.py slow|burst|served ADDRESS PORT N SOURCE...

They come from the SOURCE addresses in turn. slow: all at once; each begins a request, and says no more. burst: one after
the other, 500 at a time; each asks for a host that nobody has. served: as burst, for a host that is there, and each takes
the whole answer, whose body is "hello\\n". Prints "all are here" when the last has come, and "N reset, N served, N otherwise"
when the last is gone.
"""

import errno
import select
import socket
import sys

WORDS = {"slow": b"GET / HTTP/1.1\r\nHost: app", "burst": b"GET / HTTP/1.1\r\nHost: nobody.demo\r\n\r\n",
         "served": b"GET / HTTP/1.1\r\nHost: app.demo\r\nConnection: close\r\n\r\n"}
AT_ONCE = {"slow": 1 << 30, "burst": 500, "served": 500}
BIND_WITHOUT_PORT = 24  # IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect(), and may be one in use elsewhere

how, address, port, n_visitors, sources = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
epoll = select.epoll()
visitors, begun, ends = {}, 0, {"reset": 0, "served": 0, "otherwise": 0}
answers = {}  # descriptor -> what it was answered so far


def come(source):
    visitor = socket.socket()
    visitor.setblocking(False)
    visitor.setsockopt(socket.IPPROTO_IP, BIND_WITHOUT_PORT, 1)
    visitor.bind((source, 0))
    if visitor.connect_ex((address, port)) not in (0, errno.EINPROGRESS):
        raise SystemExit("connect failed")
    visitors[visitor.fileno()] = visitor
    epoll.register(visitor, select.EPOLLOUT)


def leave(fd, end):
    ends[end] += 1
    answers.pop(fd, None)
    visitors.pop(fd).close()


def on_event(fd, events):
    try:
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            answer = visitors[fd].recv(65536)  # raises when it is a reset
            answers[fd] = answers.get(fd, b"") + answer
            if not answer or how != "served":
                is_whole = answers[fd].split(b" ", 2)[1:2] == [b"200"] and answers[fd].endswith(b"\r\n\r\nhello\n")
                leave(fd, "served" if is_whole else "otherwise")
        else:
            visitors[fd].send(WORDS[how])
            epoll.modify(fd, select.EPOLLIN)
    except (ConnectionResetError, BrokenPipeError):
        leave(fd, "reset")


while begun < n_visitors or visitors:
    for _ in range(100):
        if begun < n_visitors and len(visitors) < AT_ONCE[how]:
            come(sources[begun % len(sources)])
            begun += 1
            if begun == n_visitors:
                print("all are here", flush=True)
    for fd, events in epoll.poll(0 if begun < n_visitors and len(visitors) < AT_ONCE[how] else 1):
        on_event(fd, events)
print(", ".join(f"{n} {end}" for end, n in ends.items()), flush=True)
