#!/usr/bin/env python3
"""A small RayBox client: register, log in, chat, fetch stored messages, and reconnect. Python 3.10, standard library only.

    examples/client.py HOST PORT new NAME PASSWORD      registers, and prints the new id
    examples/client.py HOST PORT chat ID PASSWORD       logs in; then each line "TO TEXT" on stdin is sent to user TO

docs/protocol.md explains each message. This client ends its messages with newlines, so it can read line by line.
"""
import collections, json, queue, random, socket, sys, threading, time, uuid

PUSHES = {4: "chat", 5: "friend request", 9: "group chat"}
HEARTBEAT = 300  # seconds; the server closes connections that are silent for 20 minutes
PATIENCE = 30  # seconds to wait for a reply


class Connection:
    """One TCP connection: replies come in the order of the requests, and pushes may come between them."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=PATIENCE)
        self.received, self.pushes = b"", collections.deque()

    def send(self, message):
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(json.dumps(message, ensure_ascii=False).encode() + b"\n")

    def receive(self, timeout):
        """Returns the next message. Raises TimeoutError if none comes in time, ConnectionError when the connection ends."""
        self.socket.settimeout(timeout)
        while b"\n" not in self.received:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError("the server has closed the connection")
            self.received += more
        line, _, self.received = self.received.partition(b"\n")
        return json.loads(line)

    def reply(self):
        """Returns the next reply. Pushes that come before it are kept for `push`."""
        while is_push(message := self.receive(PATIENCE)):
            self.pushes.append(message)
        return message

    def push(self, timeout):
        """Returns the next push; None if none comes in time."""
        try:
            return self.pushes.popleft() if self.pushes else self.receive(timeout)
        except TimeoutError:
            return None

    def ask(self, message):
        self.send(message)
        return self.reply()


def is_push(message):
    return message.get("msgType") in PUSHES or (message.get("msgType") == 6 and message.get("new") is True)


class Client:
    """A user who stays connected. `outbox` outlives connections: unacknowledged messages are sent again."""

    def __init__(self, host, port, user, password):
        self.host, self.port, self.user, self.password = host, port, user, password
        self.outbox, self.seen = [], collections.deque(maxlen=10_000)
        self.typed = queue.Queue()
        self.reader = threading.Thread(target=self.read_lines, daemon=True)

    def log_in(self, connection):
        reply = connection.ask({"msgType": 1, "USERID": self.user, "password": self.password})
        if reply["errno"] == 302:
            sys.exit(reply["msg"])
        if reply["errno"] != 200:  # 429 or 503: wait for the time that the server names
            time.sleep(reply.get("retryAfter", 1))
            raise ConnectionError(reply["errmsg"])
        # Each reply holds some of the stored messages, which the server deletes once the reply has
        # arrived. So the messages are shown at once.
        while (reply := connection.ask({"msgType": 14, "FROMID": self.user})).get("msgs"):
            for text in reply["msgs"]:
                self.show(json.loads(text))
        print("connected", flush=True)

    def show(self, message):
        """Shows a message, unless its number was shown before: after a failure a message may come twice."""
        if (number := message.get("id")) is not None:
            if number in self.seen:
                return
            self.seen.append(number)
        if message.get("msgType") == 6:
            print(f"{message['name']} ({message['userId']}) is your friend now", flush=True)
        else:
            print(f"{PUSHES[message['msgType']]} from {message.get('FROMID')}: {message.get('msg', '')}", flush=True)

    def send_outbox(self, connection):
        """Sends all messages. Chats have no reply, but the reply to 200 says that those before it are delivered or stored."""
        for message in self.outbox:
            connection.send(message)
        reply = connection.ask({"msgType": 200})
        while reply["errno"] != 200:  # an error refuses one of the chats; the reply to 200 is still to come
            print(f"not sent: {reply.get('errmsg')}", flush=True)
            reply = connection.reply()
        self.outbox.clear()

    def talk(self, connection):
        """Sends the typed lines and shows incoming messages. Returns when the input has ended and all is sent."""
        self.log_in(connection)
        spoken = time.monotonic()
        while self.reader.is_alive() or not self.typed.empty() or self.outbox:
            while not self.typed.empty():
                self.outbox.append(self.typed.get())
            if self.outbox or time.monotonic() - spoken > HEARTBEAT:
                self.send_outbox(connection)
                spoken = time.monotonic()
            if (push := connection.push(timeout=0.1)) is not None:
                self.show(push)

    def read_lines(self):
        for line in sys.stdin:
            to, _, text = line.strip().partition(" ")
            if to.isdigit() and text:
                number = uuid.uuid4().hex
                self.typed.put({"msgType": 4, "FROMID": self.user, "TOID": int(to), "msg": text, "id": number})
            else:
                print("write: ID TEXT", flush=True)

    def run(self):
        self.reader.start()
        pause = 0.5
        while True:
            try:
                return self.talk(Connection(self.host, self.port))
            except (OSError, ValueError) as error:
                print(f"disconnected: {error}", file=sys.stderr, flush=True)
                time.sleep(pause * (0.5 + random.random()))  # so that clients do not all come back at the same moment
                pause = min(2 * pause, 30)


def main():
    match sys.argv[1:]:
        case [host, port, "new", name, password]:
            reply = Connection(host, int(port)).ask({"msgType": 2, "name": name, "password": password})
            print(reply["USERID"] if reply["errno"] == 200 else sys.exit(reply["errmsg"]))
        case [host, port, "chat", user, password]:
            Client(host, int(port), int(user), password).run()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
