#!/usr/bin/env python3
"""Counts the instructions that the server spends on a message, and compares them with the recorded ones.

    instructions.py [--server FILE] [--runs N] [--update REASON] [SCENARIO...]

Use instructions.sh, which builds the server and installs valgrind.  A scenario is played twice, each time against a
fresh server under callgrind: first N rounds, then 3 N.  Start, logins and shutdown cost the same both times, so the
difference is exactly 2 N rounds.  The users come from a database that was made before.  Each message is sent only after
the last answer has come and the server sleeps again.  So neither the speed of the machine nor other programs change
which messages share a batch.

Exit status: 0 nothing costs more than recorded, 1 something does, 2 it could not be measured.
Only the Python standard library is used.
"""

import argparse
import collections
import os
import pathlib
import platform
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORDED = ROOT / "raybench" / "instructions.txt"
ALLOWED = 0.05   # so much more is no failure, and so much less is no news
PATIENCE = 120   # seconds that anything may take: valgrind runs one thread at a time, and each fifty times slower
IDLE = 2         # seconds without anything to do, after which nothing more is due
WINDOW = 32      # messages in one write
MEMBERS = 100    # of the group, the sender among them

DATABASE = "raybox.db"
OPTIONS = (
    # Two loops on every machine, so that sender and recipient have different ones, as on a usual
    # machine with several.
    "--loops", "2",
    "--hashers", "1",
    "--argon2", "m=8,t=1,p=1",
    # Periodic work of threads is not a cost of a message.
    "--account-check", "0",
    "--log-level", "warn",
    "--log-dir", "logs",
)


class Unmeasured(Exception):
    """The server or valgrind did not behave as expected."""


# ---- The server ----

class Server:
    """A server in a temporary folder, which ends with the block.  If a database is given, it runs under callgrind."""

    def __init__(self, program, database=None):
        self.program = program
        self.database = database

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="raybox-instructions-")
        path = pathlib.Path(self.folder.name)
        self.profile = path / "profile"
        self.errors = open(path / "stderr", "w+")
        valgrind = ()
        if self.database:
            (path / DATABASE).write_bytes(self.database)
            # The output of callgrind goes to its own file; stdout and stderr belong to the server.
            valgrind = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={self.profile}", f"--log-file={path}/valgrind")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAYBOX_")}
        self.process = subprocess.Popen((*valgrind, self.program, "127.0.0.1", "0", *OPTIONS), cwd=path, env=environment,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        answers, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        first = self.process.stdout.readline() if answers else ""
        listening = re.search(r" listening on 127\.0\.0\.1:(\d+),", first)
        if not listening:
            said = first + self.said()
            self.__exit__()
            raise Unmeasured(f"the server does not start: {said}")
        self.port = int(listening[1])
        self.threads = Threads(self.process.pid)
        self.clients = []
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        self.folder.cleanup()

    def said(self):
        self.errors.flush()
        self.errors.seek(0)
        return self.errors.read().strip()

    def stop(self):
        """Shuts the server down gracefully."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Unmeasured("the server does not stop") from None
        if status != 0 or self.said():
            raise Unmeasured(f"the server ended with {status}: {self.said()}")

    def spent(self):
        """Stops the server after all delayed work is done; returns the instructions of each function."""
        self.threads.wait_idle()
        # Close them one by one: otherwise chance would decide how many states share a transaction.
        for client in self.clients:
            client.socket.close()
            self.threads.wait_asleep()
        self.stop()
        return costs(self.profile.read_text())

    def filled(self):
        """Stops the server; returns its database."""
        self.stop()
        return (pathlib.Path(self.folder.name) / DATABASE).read_bytes()


class Threads:
    """The threads of a process; tells whether they sleep."""

    def __init__(self, process):
        self.folder = f"/proc/{process}/task"

    def wait_asleep(self):
        """Waits until no work is left.  Under valgrind only one thread runs at a time, and the others wait for it asleep.
        A thread that hands over may fall asleep before the next one wakes up, so this checks twice."""
        by = time.monotonic() + PATIENCE
        asleep = 0
        while asleep < 2:
            asleep = asleep + 1 if self.all_asleep() else 0
            if time.monotonic() > by:
                raise Unmeasured("the server does not come to rest")

    def wait_idle(self):
        """Waits until the process has used no processor time for a while.  A second after a write, the server asks the
        kernel what has arrived (net/src/link.rs); a query that has not happened yet would become part of the shutdown."""
        by = time.monotonic() + PATIENCE
        used, since = self.processor_ticks(), time.monotonic()
        while time.monotonic() < since + IDLE:
            time.sleep(0.1)
            before, used = used, self.processor_ticks()
            if used != before:
                since = time.monotonic()
            if time.monotonic() > by:
                raise Unmeasured("the server does not come to rest")

    def processor_ticks(self):
        with open(f"{self.folder}/../stat", "rb") as stat:
            fields = stat.read().rpartition(b") ")[2].split()
        return int(fields[11]) + int(fields[12])

    def all_asleep(self):
        for thread in os.listdir(self.folder):
            try:
                with open(f"{self.folder}/{thread}/stat", "rb") as stat:
                    if stat.read().rpartition(b") ")[2][:1] != b"S":
                        return False
            except (FileNotFoundError, ProcessLookupError):
                continue
        return True


def costs(profile):
    """The instructions of each function in a callgrind profile, without those of the functions that it calls."""
    names, found = {}, collections.Counter()
    function, called = None, False
    for line in profile.splitlines():
        if line.startswith("fn="):
            number, _, name = line[3:].partition(" ")
            function = names.setdefault(number, name)
        elif line.startswith("cfn="):
            number, _, name = line[4:].partition(" ")
            names.setdefault(number, name)
        elif line.startswith("calls="):
            called = True
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not called:
                found[function] += int(line.split()[1])
            called = False
    total = re.search(r"^totals: (\d+)$", profile, re.M)
    if not total or int(total[1]) != sum(found.values()):
        raise Unmeasured("callgrind's profile is not understood")
    return found


# ---- The scenarios ----

class Client:
    """A connection in line mode."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        server.clients.append(self)

    def send(self, data):
        self.socket.sendall(data)

    def lines(self, count):
        """Takes this many lines; the server must not have sent more."""
        while self.received.count(b"\n") < count:
            data = self.socket.recv(65536)
            if not data:
                raise Unmeasured("the server has closed a connection")
            self.received += data
        lines, self.received = self.received.split(b"\n"), b""
        if len(lines) != count + 1 or lines.pop():
            raise Unmeasured(f"the server sends more than {count} lines: {lines}")
        return lines

    def ask(self, request):
        self.send(request.encode() + b"\n")
        return self.lines(1)[0].decode()


class WebSocketClient(Client):
    """A connection on which each line is a message of a WebSocket."""

    UPGRADE = (b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    KEY = b"\x37\xfa\x21\x3d"

    def __init__(self, server):
        super().__init__(server)
        self.socket.sendall(self.UPGRADE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            data = self.socket.recv(65536)
            if not data:
                raise Unmeasured("the server has closed a connection")
            answer += data
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise Unmeasured(f"the server opens no WebSocket: {answer}")

    def send(self, data):
        self.socket.sendall(b"".join(self.masked(line) for line in data.splitlines()))

    def masked(self, payload):
        length = bytes((128 + len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
        return b"\x81" + length + self.KEY + bytes(byte ^ self.KEY[at % 4] for at, byte in enumerate(payload))

    def lines(self, count):
        """Takes this many messages; the server must not have sent more."""
        lines = []
        while len(lines) < count or self.received:
            length = self.received[1] if len(self.received) > 1 else 127
            if len(self.received) < 2 + length:
                data = self.socket.recv(65536)
                if not data:
                    raise Unmeasured("the server has closed a connection")
                self.received += data
                continue
            if self.received[0] != 0x81 or length > 125:
                raise Unmeasured(f"this is no short text: {self.received[:16]}")
            lines.append(self.received[2:2 + length])
            self.received = self.received[2 + length:]
        if len(lines) != count:
            raise Unmeasured(f"the server sends more than {count} messages: {lines}")
        return lines


def expect_reply(reply, pattern):
    if not re.fullmatch(pattern, reply):
        raise Unmeasured(f"an unexpected reply: {reply}")


def prepare(program):
    """Makes a database with users 1 to MEMBERS, all in group 1.  This is not measured: its cost depends on chance."""
    with Server(program) as server:
        client = Client(server)
        for user in range(1, MEMBERS + 1):
            reply = client.ask(f'{{"msgType":2,"name":"user {user}","password":"pass"}}')
            expect_reply(reply, f'{{"USERID":{user},"errno":200,"msgType":200}}')
        log_in(client, 1)
        expect_reply(client.ask('{"msgType":12,"FROMID":1,"name":"all","description":""}'), r'{"GROUPID":1,"errno":200,.*')
        for user in range(2, MEMBERS + 1):
            log_in(client, user)
            expect_reply(client.ask(f'{{"msgType":10,"FROMID":{user},"GROUPID":1}}'), '{"errno":200,.*')
        return server.filled()


def log_in(client, user):
    reply = client.ask(f'{{"msgType":1,"USERID":{user},"password":"pass"}}')
    expect_reply(reply, '{"errno":200,"msgType":200}')


def logged_in(server, user, kind=Client):
    """Logs a user in on a new connection."""
    client = kind(server)
    log_in(client, user)
    server.threads.wait_asleep()
    return client


def message(sender, to, msg_type=4, key="TOID"):
    """A chat of a usual size: 100 bytes and the newline."""
    text = f'{{"FROMID":{sender},"{key}":{to},"msgType":{msg_type},"sendTime":"2026-01-01 12:00:00","msg":"'
    return f'{text}{"how do you do? ".ljust(98 - len(text), ".")}"}}\n'.encode()


def expect(client, frame, count=1):
    if any(line != frame.rstrip() for line in client.lines(count)):
        raise Unmeasured("something else was delivered")


def play_chat(server):
    """One message between two users on different event loops."""
    sender, recipient = logged_in(server, 1), logged_in(server, 2)
    frame = message(1, 2)

    def play():
        sender.send(frame)
        expect(recipient, frame)
    return play


def play_window(server, kind=Client):
    """The same for many messages that arrive together."""
    sender, recipient = logged_in(server, 1, kind), logged_in(server, 2, kind)
    frame = message(1, 2)

    def play():
        sender.send(frame * WINDOW)
        expect(recipient, frame, WINDOW)
    return play


def play_socket(server):
    """The same over WebSockets."""
    return play_window(server, WebSocketClient)


def play_group(server):
    """One delivery of a message to a group whose members are all online here."""
    sender, *others = [logged_in(server, user) for user in range(1, MEMBERS + 1)]
    frame = message(1, 1, 9, "GROUPID")

    def play():
        sender.send(frame)
        for member in others:
            expect(member, frame)
    return play


def play_kept(server):
    """One message for an offline user, stored in the embedded database and acknowledged by the reply to a small request."""
    sender = logged_in(server, 1)
    frame = message(1, 2) + b'{"msgType":404}\n'
    reply = b'{"errmsg":"No such method, failed to process your request!","errno":404,"msgType":404}'

    def play():
        sender.send(frame)
        expect(sender, reply)
    return play


def play_refused(server):
    """One frame that is not JSON, and the reply to it: the usual client's heartbeat."""
    client = Client(server)
    reply = b'{"errmsg":"Failed to parse the json string!","errno":401,"msgType":401}'

    def play():
        client.send(b"keep this socket alive\n")
        expect(client, reply)
    return play


# Name: the function that plays it, the number of rounds, and the messages of a round.
SCENARIOS = {
    "chat": (play_chat, 1000, 1),
    "window": (play_window, 100, WINDOW),
    "socket": (play_socket, 100, WINDOW),
    "group": (play_group, 100, MEMBERS - 1),
    "kept": (play_kept, 200, 1),
    "refused": (play_refused, 1000, 1),
}


def spent(program, database, scenario, rounds):
    """The instructions of a server from start to end, by function."""
    with Server(program, database) as server:
        play = SCENARIOS[scenario][0](server)
        for _ in range(rounds):
            server.threads.wait_asleep()
            play()
        return server.spent()


def measure(program, database, scenario):
    """The instructions of one message, by function."""
    _, rounds, messages = SCENARIOS[scenario]
    few, many = (spent(program, database, scenario, times * rounds) for times in (1, 3))
    many.subtract(few)
    return {function: count / (2 * rounds * messages) for function, count in many.items()}


# ---- The recorded figures ----

HEAD = """\
# Instructions that the server spends on one message outside of the kernel, as
# scripts/instructions.sh counts them: what, how many, what they were counted with, and why the
# figure is what it is. Written by scripts/instructions.sh --update REASON.
"""


def read_recorded():
    recorded = {}
    for line in RECORDED.read_text().splitlines() if RECORDED.exists() else ():
        if line.strip() and not line.startswith("#"):
            name, figure, tools, reason = (part.strip() for part in line.split("|", 3))
            recorded[name] = (int(figure), tools, reason)
    return recorded


def write_recorded(recorded):
    rows = "".join(f"{name:8}| {recorded[name][0]:6} | {recorded[name][1]} | {recorded[name][2]}\n"
                   for name in SCENARIOS if name in recorded)
    RECORDED.write_text(HEAD + rows)


def tools():
    """The versions and the architecture that the figures depend on, besides the sources."""
    def version(*command):
        return re.search(r"\d+\.\d+[.\d]*", subprocess.run(command, capture_output=True, text=True, check=True).stdout)[0]
    return (f"rustc {version('rustc', '--version')}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}, "
            f"valgrind {version('valgrind', '--version')}, {platform.machine()}")


def compare(name, figure, by_function, recorded, made_with):
    """Prints how a figure compares; false if it is too high.  A figure of another architecture is not compared."""
    before, before_with, _ = recorded
    if before_with.rpartition(", ")[2] != platform.machine():
        print(f"{name:8} {figure:7.0f} instructions, NOT COMPARED: recorded {before} with {before_with}", flush=True)
        return True
    change = figure / before - 1
    print(f"{name:8} {figure:7.0f} instructions, recorded {before}: {change:+.1%}", flush=True)
    if change < -ALLOWED:
        print(f"{name:8} is cheaper: record the new figure with scripts/instructions.sh --update REASON {name}")
    if change <= ALLOWED:
        return True
    print(f"{name:8} is dearer by more than {ALLOWED:.0%}. It is spent in:")
    for function, count in sorted(by_function.items(), key=lambda item: -item[1])[:15]:
        print(f"  {count:7.0f}  {function}")
    if before_with != made_with:
        print(f"  recorded with {before_with}; this is {made_with}")
    print("If it is worth it: scripts/instructions.sh --update REASON " + name)
    return False


def main():
    parser = argparse.ArgumentParser(prog="scripts/instructions.sh",
                                     description="Counts the instructions of a message and compares them with the recorded ones.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)}; all if none is named")
    parser.add_argument("--server", default=str(ROOT / "target/release/server"), help="the program to measure")
    parser.add_argument("--runs", type=int, default=1, help="measure so often, take the median and show the spread")
    parser.add_argument("--update", metavar="REASON", help="record the figures, and why they have changed")
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}")
    if options.update is not None and len(options.update.split()) < 2:
        parser.error("--update needs a reason that says why")
    if options.runs < 1:
        parser.error("--runs must be 1 at least")

    program, made_with, recorded = str(pathlib.Path(options.server).resolve()), tools(), read_recorded()
    print(f"instructions.sh: {made_with}", flush=True)
    database, good = prepare(program), True
    for name in options.scenarios or SCENARIOS:
        runs = [measure(program, database, name) for _ in range(options.runs)]
        figures = [sum(run.values()) for run in runs]
        figure = statistics.median(figures)
        if options.runs > 1:
            spread = (max(figures) - min(figures)) / figure
            print(f"{name:8} {' '.join(f'{each:.1f}' for each in figures)}: within {spread:.2%}")
        if options.update is not None:
            recorded[name] = (round(figure), made_with, " ".join(options.update.split()))
            print(f"{name:8} {figure:7.0f} instructions, recorded", flush=True)
        elif name not in recorded:
            raise Unmeasured(f"{name} has no recorded figure in {RECORDED}")
        else:
            good &= compare(name, figure, runs[-1], recorded[name], made_with)
    if options.update is not None:
        write_recorded(recorded)
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Unmeasured, OSError, subprocess.SubprocessError) as error:
        print(f"instructions.sh: {error}", file=sys.stderr)
        sys.exit(2)
