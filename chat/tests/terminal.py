"""Runs `chat` on a terminal of 40 by 12. Prints nothing if all is well.

    terminal.py type CHAT ARGUMENT...     types into it, resizes the terminal, and ends it
    terminal.py close CHAT ARGUMENT...    closes the terminal
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import unicodedata

PATIENCE = 60


def resize(fd, pid, columns, rows):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    os.kill(pid, signal.SIGWINCH)


class Terminal:
    """The screen of a program: follows cursor moves and text, and ignores colours."""

    def __init__(self, command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # Wait until the terminal has its size.
            sys.stdin.readline()
            os.environ["TERM"] = "xterm-256color"
            os.execv(command[0], command)
        resize(self.fd, self.pid, 40, 12)
        os.write(self.fd, b"\n")
        self.said = b""
        self.cells = {}
        self.row = self.column = 1
        self.is_over = False

    def read(self, deadline):
        """Reads a piece; returns False at the end."""
        if not select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
            return False
        try:
            piece = os.read(self.fd, 65536)
        except OSError:
            return False
        self.said += piece
        self.show()
        return bool(piece)

    def show(self):
        while self.said:
            sequence = re.match(rb"\x1b\[([0-9;?]*)([a-zA-Z])", self.said)
            if sequence:
                self.act(sequence[1].decode(), sequence[2].decode())
                self.said = self.said[sequence.end():]
                continue
            if self.said[0] == 0x1B:
                return
            length = 1 + sum(self.said[0] >= least for least in (0xC0, 0xE0, 0xF0))
            if len(self.said) < length:
                return
            character = self.said[:length].decode()
            self.said = self.said[length:]
            if character in "\r\n":
                continue
            self.cells[self.row, self.column] = character
            if unicodedata.east_asian_width(character) in "WF":
                self.column += 1
                self.cells.pop((self.row, self.column), None)
            self.column += 1

    def act(self, numbers, letter):
        if letter == "H":
            self.row, self.column = (int(number) for number in (numbers or "1;1").split(";"))
        elif letter == "J":
            self.cells = {}
        elif (numbers, letter) == ("?1049", "l"):
            self.is_over = True

    def text(self):
        rows = {}
        for (row, _), character in sorted(self.cells.items()):
            rows[row] = rows.get(row, "") + character
        return "\n".join(rows[row].rstrip() for row in sorted(rows))

    def wait_for(self, text):
        """Waits until this is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.text():
            if not self.read(deadline):
                self.fail(f"waited in vain for {text!r} on")

    def type(self, text):
        """Types this, and reads meanwhile: a program whose output nobody reads need not read either."""
        deadline = time.monotonic() + PATIENCE
        rest = text.encode()
        os.set_blocking(self.fd, False)
        while rest:
            left = max(0, deadline - time.monotonic())
            readable, writable, _ = select.select([self.fd], [self.fd], [], left)
            if readable:
                self.read(deadline)
            if writable:
                try:
                    rest = rest[os.write(self.fd, rest):]
                except BlockingIOError:
                    pass
            if not left:
                self.fail(f"it does not read: {len(rest)} bytes of {text[:20]!r}... wait on")
        os.set_blocking(self.fd, True)

    def fail(self, why):
        os.kill(self.pid, signal.SIGKILL)
        sys.exit(f"{why}:\n{self.text()}")

    def wait_for_end(self):
        """Waits until the program has ended, and returns its status."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            time.sleep(0.01)
        self.fail("it has not ended")


def type_a_message(terminal):
    terminal.type("/open u2\r")
    terminal.wait_for("bob\n")
    terminal.wait_for("the beginning")
    terminal.type("hello \u4f60\u597d from a terminal\r")
    terminal.wait_for("ann: \u2713 hello \u4f60\u597d")
    resize(terminal.fd, terminal.pid, 100, 30)
    # The screen is drawn again, now with the list beside the conversation.
    terminal.wait_for("ann: \u2713 hello \u4f60\u597d from a terminal")
    # The server refuses a text that is too long, and chat goes on. A signal restores the terminal.
    paste = "\x1b[200~%s\x1b[201~"
    terminal.type("/edit " + paste % ("\"" * 40000) + "\r")
    terminal.wait_for("the message has")
    terminal.type("\x15")
    os.kill(terminal.pid, signal.SIGTERM)
    # Until the program has closed its side.
    deadline = time.monotonic() + PATIENCE
    while terminal.read(deadline):
        pass
    status = terminal.wait_for_end()
    if not terminal.is_over:
        sys.exit("the ordinary screen does not come back")
    if status != 0:
        sys.exit(f"it ended with {status}")


def close(terminal):
    """A terminal that is gone must not leave a program behind that keeps a core busy."""
    os.close(terminal.fd)
    status = terminal.wait_for_end()
    if os.WIFSIGNALED(status):
        sys.exit(f"it ended with {status}")


terminal = Terminal(sys.argv[2:])
terminal.wait_for("\nonline")
{"type": type_a_message, "close": close}[sys.argv[1]](terminal)
