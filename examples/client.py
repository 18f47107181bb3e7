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


class Client:
    """A client that stays connected. `outbox` outlives connections: unacknowledged messages are sent again."""

    def __init__(self, host, port, user=None, password=None):
        self.address, self.user, self.password = (host, int(port)), user, password
        self.outbox, self.seen, self.typed = [], collections.deque(maxlen=10_000), queue.Queue()
        self.typist = threading.Thread(target=self.read_lines, daemon=True)

    def connect(self):
        self.socket = socket.create_connection(self.address, timeout=PATIENCE)
        self.received, self.pushes = b"", collections.deque()

    def send(self, message):
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(json.dumps(message, ensure_ascii=False).encode() + b"\n")

    def receive(self, timeout):
        """Returns the next message. Raises TimeoutError if none comes in time, ConnectionError when the connection ends."""
        self.socket.settimeout(timeout)
        while b"\n" not in self.received:
            if not (more := self.socket.recv(65536)):
                raise ConnectionError("the server has closed the connection")
            self.received += more
        line, _, self.received = self.received.partition(b"\n")
        return json.loads(line)

    def reply(self):
        """Returns the next reply: replies come in the order of the requests. Pushes before it are kept."""
        while (message := self.receive(PATIENCE)).get("msgType") in PUSHES or message.get("new") is True:
            self.pushes.append(message)
        return message

    def ask(self, message):
        self.send(message)
        return self.reply()

    def log_in(self):
        reply = self.ask({"msgType": 1, "USERID": self.user, "password": self.password})
        if reply["errno"] == 302:
            sys.exit(reply["msg"])
        if reply["errno"] != 200:  # 429 or 503: wait for the time that the server names
            time.sleep(reply.get("retryAfter", 1))
            raise ConnectionError(reply["errmsg"])
        # The server deletes stored messages once the reply with them has arrived, so they are shown at once.
        while (reply := self.ask({"msgType": 14, "FROMID": self.user})).get("msgs"):
            for text in reply["msgs"]:
                self.show(json.loads(text))
        print("connected", flush=True)

    def show(self, message):
        """Shows a message, unless its number was shown before: after a failure a message may come twice."""
        number = message.get("id", uuid.uuid4().hex)
        if number in self.seen:
            return
        self.seen.append(number)
        if message.get("msgType") == 6:
            print(f"{message['name']} ({message['userId']}) is your friend now", flush=True)
        else:
            print(f"{PUSHES[message['msgType']]} from {message.get('FROMID')}: {message.get('msg', '')}", flush=True)

    def send_outbox(self):
        """Sends all messages. Chats have no reply, but the reply to 200 says that those before it are delivered or stored."""
        for message in self.outbox:
            self.send(message)
        reply = self.ask({"msgType": 200})
        while reply["errno"] != 200:  # an error refuses one of the chats; the reply to 200 is still to come
            print(f"not sent: {reply.get('errmsg')}", flush=True)
            reply = self.reply()
        self.outbox.clear()

    def talk(self):
        """Sends the typed lines and shows incoming messages. Returns when the input has ended and all is sent."""
        self.connect()
        self.log_in()
        spoken = time.monotonic()
        while self.typist.is_alive() or not self.typed.empty() or self.outbox:
            while not self.typed.empty():
                self.outbox.append(self.typed.get())
            if self.outbox or time.monotonic() - spoken > HEARTBEAT:
                self.send_outbox()
                spoken = time.monotonic()
            try:
                self.show(self.pushes.popleft() if self.pushes else self.receive(timeout=0.1))
            except TimeoutError:
                pass  # nothing has come

    def read_lines(self):
        for to, _, text in (line.strip().partition(" ") for line in sys.stdin):
            if to.isdigit() and text:
                self.typed.put({"msgType": 4, "FROMID": self.user, "TOID": int(to), "msg": text, "id": uuid.uuid4().hex})

    def run(self):
        self.typist.start()
        pause = 0.5
        while True:
            try:
                return self.talk()
            except (OSError, ValueError) as error:
                print(f"disconnected: {error}", file=sys.stderr, flush=True)
                time.sleep(pause * (0.5 + random.random()))  # so that clients do not all come back at the same moment
                pause = min(2 * pause, 30)


match sys.argv[1:]:
    case [host, port, "new", name, password]:
        (client := Client(host, port)).connect()
        reply = client.ask({"msgType": 2, "name": name, "password": password})
        print(reply["USERID"] if reply["errno"] == 200 else sys.exit(reply["errmsg"]))
    case [host, port, "chat", user, password]:
        Client(host, port, int(user), password).run()
    case _:
        sys.exit(__doc__)
