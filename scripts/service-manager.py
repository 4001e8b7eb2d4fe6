#!/usr/bin/env python3
"""A service manager for one program, as far as arps speaks with one: what systemd does with `systemctl restart` and
FileDescriptorStoreMax. For tests and measurements on machines without systemd.

    service-manager.py PROGRAM ARGUMENTS...

SIGHUP restarts the program (SIGTERM, wait, start again with the sockets that it left here); SIGTERM ends both."""

import array
import os
import signal
import socket
import sys
import tempfile
import threading

directory = tempfile.TemporaryDirectory()
path = os.path.join(directory.name, "notify")
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(path)
kept = {}  # name -> descriptor
lock = threading.Lock()


def listen():
    while True:
        size = array.array("i").itemsize
        data, extra, _, _ = notify.recvmsg(4096, socket.CMSG_SPACE(16 * size))
        fds = array.array("i")
        for level, kind, content in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % size])
        told = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
        name = told.get("FDNAME", "")
        with lock:
            if "FDSTOREREMOVE" in told and name in kept:
                os.close(kept.pop(name))
            if "FDSTORE" in told:
                for fd in fds:
                    if name in kept:
                        os.close(kept[name])
                    kept[name] = fd


def start():
    with lock:
        names = sorted(kept)
        fds = [os.dup(kept[name]) for name in names]
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        return pid
    # Out of the way first, so that none is overwritten before its turn.
    import fcntl
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
    for at, fd in enumerate(high):
        os.dup2(fd, 3 + at, inheritable=True)
    for fd in high:
        os.close(fd)
    os.environ["NOTIFY_SOCKET"] = path
    if fds:
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=":".join(names))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    os.execv(sys.argv[1], sys.argv[1:])


signals = {signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
threading.Thread(target=listen, daemon=True).start()
child = start()
while True:
    got = signal.sigwait(signals)
    if got == signal.SIGCHLD:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
        continue
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    if got != signal.SIGHUP:
        sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
    child = start()
