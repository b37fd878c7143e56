#!/usr/bin/python3
"""refusing.py PROGRAM ARGUMENT...: runs it in a world whose kernel refuses merged TUN writes (EINVAL).

A seccomp filter: writev(2) with more than two pieces fails, as a single packet and its header are two.
"""

import ctypes
import os
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
SYS_WRITEV, EINVAL = 20, 22
LOAD, JUMP_EQUAL, JUMP_GREATER, RETURN = 0x20, 0x15, 0x25, 0x06
ALLOW, ERRNO = 0x7fff0000, 0x00050000


def install():
    code = b"".join(struct.pack("HBBI", *line) for line in (
        (LOAD, 0, 0, 0),                    # the number of the call
        (JUMP_EQUAL, 0, 3, SYS_WRITEV),
        (LOAD, 0, 0, 16 + 2 * 8),           # how many pieces
        (JUMP_GREATER, 0, 1, 2),
        (RETURN, 0, 0, ERRNO | EINVAL),
        (RETURN, 0, 0, ALLOW)))
    filter_ = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(filter_))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program):
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    install()
    os.execv(sys.argv[1], sys.argv[1:])
