#!/usr/bin/env python3
"""A push bridge: gets messages from the hook of a RayBox server, and hands them to a push service. Python 3.10, standard library only.

    examples/push_bridge.py PORT KEYFILE      listens on 127.0.0.1

server.cnf:  hook_url=http://127.0.0.1:PORT/  hook_key=KEYFILE  hook_private=127.0.0.1

docs/hooks.md explains the requests. Replace `push`. Put a web server with TLS before it if it runs on another machine.
"""
import collections, hmac, http.server, json, queue, sys, threading, time

FRESH = 300  # seconds; an older request may be a copy
BODY_MAX = 32 << 20  # bytes; a body is longer than 256 KiB only if a single message is
REMEMBERED = 100_000  # messages that are recognised when they come again
WAITING_MAX = 10_000  # messages that wait for the push service


def push(user, title, text):
    """Sends a notification to the devices of a user: put the call of your push service here."""
    print(json.dumps({"user": user, "title": title, "text": text}, ensure_ascii=False), flush=True)


def is_genuine(key, headers, body):
    """Whether the request was signed with the key, and lately."""
    timestamp, signature = headers.get("X-RayBox-Timestamp", ""), headers.get("X-RayBox-Signature", "")
    expected = hmac.new(key, timestamp.encode() + b"." + body, "sha256").hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        return False
    return abs(time.time() - int(timestamp)) < FRESH


def text_of(message):
    """What a notification shows; None for what this bridge leaves out."""
    kind, name = message.get("msgType"), message.get("name")
    if "edit" in message or "recall" in message:
        return None  # it changes a message that was shown before
    if kind == 6:
        return f"{name} asks to be your friend" if message.get("ask") else f"{name} is your friend now"
    if kind == 57:
        return f"{message.get('event')}: {name}"
    return str(message.get("msg", ""))[:200] if kind in (4, 5, 9) else None


class Bridge:
    """Takes each message once, and pushes it in a thread of its own, so that the server gets its answer at once."""

    def __init__(self):
        self.known, self.lock = collections.OrderedDict(), threading.Lock()
        self.waiting = queue.Queue()
        threading.Thread(target=self.run, daemon=True).start()

    def take(self, messages):
        """Returns False if there is no room: the server posts the messages again."""
        with self.lock:
            if self.waiting.qsize() + len(messages) > WAITING_MAX:
                return False
            for message in messages:
                place = (message["user"], message["conv"], message["seq"])
                if place not in self.known:
                    self.known[place] = None
                    self.waiting.put(message)
            while len(self.known) > REMEMBERED:
                self.known.popitem(last=False)
            return True

    def run(self):
        while True:
            message = self.waiting.get()
            try:
                text = text_of(message["m"])
                if text is not None:
                    push(message["user"], message["conv"], text)
            except Exception as error:  # one message must not end the thread
                print(f"not pushed: {error!r}", file=sys.stderr)


def handler(key, bridge):
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self):
            length = self.headers.get("Content-Length", "")
            if not (length.isascii() and length.isdigit()) or int(length) > BODY_MAX:
                return self.answer(413)
            body = self.rfile.read(int(length))
            if not is_genuine(key, self.headers, body):
                return self.answer(401)
            return self.answer(204 if bridge.take(json.loads(body)["messages"]) else 503)

        def answer(self, status):
            self.close_connection = True
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    return Handler


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[2], "rb") as file:
        key = file.read().strip()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), handler(key, Bridge()))
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
