#!/usr/bin/env python3
"""A bot for RayBox: it answers everybody who writes to it. Python 3.10, standard library only.

    RAYBOX_TOKEN=... examples/bot.py HOST PORT DEVICE                        answers until it is stopped
    RAYBOX_TOKEN=... examples/bot.py HOST PORT DEVICE send u7|g3 TEXT...     sends one message and ends

An administrator makes the token, and names the device: `server admin users token ID DEVICE`. docs/bots.md explains it all.
"""
import http.client, json, os, random, socket, sys, time, uuid

PING = 60  # seconds of silence after which the server asks for a sign of life
MISSED = 5000  # the most missed messages of one conversation that it still answers
STATE = "bot-state.json"  # how far this bot has come in each conversation, so that it answers each message once


class Refused(Exception):
    """The server refuses the login or a message, and a retry would not help."""


class Bot:
    def __init__(self, host, port, device, token):
        self.host, self.port, self.device, self.token = host, port, device, token
        self.have = {}  # conversation -> "<seq>:<tag>", the last message that the bot has seen of it
        self.behind = set()  # conversations that begin at 0 here, and whose messages were asked for
        self.is_new = False  # whether it starts for the first time; then it answers no old messages
        self.waiting = {}  # cid -> answer without a 41; sent again after a reconnect
        try:
            with open(STATE) as file:
                state = json.load(file)
            self.have, self.waiting = state["have"], state["waiting"]
        except FileNotFoundError:
            self.is_new = True

    def save(self):
        with open(STATE + ".new", "w") as file:
            json.dump({"have": self.have, "waiting": self.waiting}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(STATE + ".new", STATE)

    def run(self):
        """Serves until the login is refused. Reconnects after every other end."""
        pause = 1
        while True:
            try:
                pause = self.connection() or pause
            except OSError as error:
                print(f"no connection: {error}", file=sys.stderr)
            time.sleep(pause * (1 + random.random() / 2))
            pause = min(pause * 2, 60)

    def connection(self):
        """One connection. Returns the seconds to wait before the next, if the server has said so."""
        with socket.create_connection((self.host, self.port), timeout=PING + 30) as connection:
            # The token from the administrator does not expire. That of the reply does, so it is not used.
            login = {"msgType": 1, "level": 2, "device": self.device, "token": self.token, "ping": PING, "have": self.have}
            self.write(connection, {**login, "resume": MISSED})
            self.behind.clear()
            for line in connection.makefile(encoding="utf-8", newline="\n"):
                frame = json.loads(line)
                kind = frame["msgType"]
                if kind == 40 and frame["errno"] != 200:
                    if "retryAfter" not in frame:
                        raise Refused(frame["errmsg"])
                    return frame["retryAfter"]
                if kind == 40:
                    self.user = frame["user"]
                    name = frame["name"]
                    for answer in self.waiting.values():
                        self.write(connection, answer)
                elif kind == 43:
                    self.conversations(frame)
                elif kind == 44:
                    self.behind.discard(frame["conv"])
                    if frame.get("reset"):  # the database was restored from a backup
                        self.have.pop(frame["conv"], None)
                elif kind == 45:
                    self.is_new = False
                    self.save()
                    if name:  # from now on it answers everything that is new
                        print(f"online as {name}", flush=True)
                        name = None
                    if self.behind:
                        self.write(connection, {"msgType": 46, "have": {conv: "0:" for conv in self.behind}, "resume": MISSED})
                elif kind == 42 and frame["conv"] not in self.behind:
                    self.message(connection, frame)
                elif kind == 41:
                    self.acknowledged(connection, frame)
                elif kind == 53:  # is the bot still there?
                    self.write(connection, {"msgType": 54})
                elif kind == 55:
                    if "retryAfter" not in frame:
                        raise Refused(f"the connection was ended: {frame['reason']}")
                    return frame["retryAfter"]
        return None

    def conversations(self, frame):
        """A 43: all conversations. Somebody may have begun one while the bot was offline."""
        for conv in frame["convs"]:
            if conv["conv"] not in self.have and conv["head"] > 0:
                if self.is_new:
                    self.have[conv["conv"]] = f"{conv['head']}:{conv['tag']}"
                else:
                    self.behind.add(conv["conv"])

    def message(self, connection, frame):
        """A 42. The answer and the cursor are stored together, so a crash neither loses an answer nor repeats it."""
        conv, m = frame["conv"], frame["m"] or {}
        seq, _, _ = self.have.get(conv, "0:").partition(":")
        if frame["seq"] <= int(seq):
            return
        self.have[conv] = f"{frame['seq']}:{frame['tag']}"
        text = m.get("msg")
        if conv.startswith("u") and frame["from"] != self.user and m.get("msgType") == 4 and isinstance(text, str):
            answer = frame_for(conv, self.user, f"You said: {text}")
            self.waiting[answer["cid"]] = answer
            self.save()
            self.write(connection, answer)
        else:
            self.save()

    def acknowledged(self, connection, frame):
        answer = self.waiting.get(frame.get("cid"))
        if frame["errno"] == 200 and "again" not in frame and frame["conv"] not in self.behind:
            self.have[frame["conv"]] = f"{frame['seq']}:{frame['tag']}"
        elif frame["errno"] != 200 and "retryAfter" in frame and answer:
            time.sleep(frame["retryAfter"])
            return self.write(connection, answer)
        elif frame["errno"] != 200:
            print(f"not sent: {frame['errmsg']}", file=sys.stderr)
        self.waiting.pop(frame.get("cid"), None)
        self.save()

    def write(self, connection, frame):
        connection.sendall(json.dumps(frame, ensure_ascii=False).encode() + b"\n")


def frame_for(conv, sender, text):
    """A message for a conversation. Its cid lets the server recognise it when it is sent again."""
    to = {"msgType": 9, "GROUPID": int(conv[1:])} if conv.startswith("g") else {"msgType": 4, "TOID": int(conv[1:])}
    return {**to, **({"FROMID": sender} if sender else {}), "cid": str(uuid.uuid4()), "msg": text}


def send_once(host, port, token, conv, text):
    """POST /v2/send: one message without a connection. The same bytes are sent again until the answer is final."""
    body = json.dumps(frame_for(conv, None, text))
    pause = 1
    while True:
        try:
            connection = http.client.HTTPConnection(host, port, timeout=30)
            connection.request("POST", "/v2/send", body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read().decode()
            if response.status == 200:
                return answer
            if response.getheader("Retry-After") is None:
                raise Refused(f"{response.status}: {answer}")
            pause = float(response.getheader("Retry-After"))
        except (OSError, http.client.HTTPException) as error:
            print(f"no answer: {error}", file=sys.stderr)
        time.sleep(pause)


def main():
    if len(sys.argv) < 4 or "RAYBOX_TOKEN" not in os.environ:
        sys.exit(__doc__)
    host, port, device, *rest = sys.argv[1:]
    token = os.environ["RAYBOX_TOKEN"]
    try:
        if rest[:1] == ["send"] and len(rest) > 2:
            print(send_once(host, int(port), token, rest[1], " ".join(rest[2:])))
        else:
            Bot(host, int(port), device, token).run()
    except Refused as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
