"""What stands for `python`: asks the server beside it for a process, and lives and ends with it."""

import json
import os
import signal
import socket
import sys

folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120


def real():
    """Be the interpreter itself, for what the server cannot start."""
    # Under this name, so that what it starts in turn may be warm.
    os.execv(sys.executable, [os.path.abspath(__file__), *sys.argv[1:]])  # noqa: PTH100


with open(os.path.join(folder, "read_early.json")) as file:  # noqa: PTH118
    early = json.load(file)
free = early["free"]
if sys.argv[1:3] == early["no_cache"]:
    free.append("HF_HOME")
mine = {
    name: value
    for name, value in os.environ.items()
    if name.startswith(tuple(early["prefixes"])) and name not in free
}
if sys.argv[1:2] not in (["-m"], ["-c"], ["-u"]) or mine != early["given"]:
    real()

server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.connect(os.path.join(folder, "socket"))  # noqa: PTH118
here = os.getcwd()  # noqa: PTH109
wanted = {"argv": sys.argv[1:], "cwd": here, "env": {**os.environ}, "umask": os.umask(0)}
os.umask(wanted["umask"])
text = json.dumps(wanted).encode()
socket.send_fds(server, [len(text).to_bytes(4, "big")], [0, 1, 2])
server.sendall(text)
replies = server.makefile("r")
child = int(replies.readline())


def forward(number, frame):
    os.kill(child, number)


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, forward)
code = os.waitstatus_to_exitcode(int(replies.readline()))
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
os._exit(code)
