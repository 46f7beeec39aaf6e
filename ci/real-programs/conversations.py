"""Conversations with a server in which every byte of every reply is known before: requests, and what they bring."""

import random
import socket
import threading

from measure import Failure

# Requests that are sent before their replies are read.
PIPELINE = 50
SECONDS = 20
TEXT = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=700_000)).encode()


class Conversation:
    """Pairs of request and reply, for one connection."""

    def __init__(self):
        self.pairs = []

    def say(self, request, reply):
        """One more."""
        self.pairs.append((request, reply))

    def hold(self, host, port):
        """Has it with a server. `Failure` where a reply is another one."""
        with socket.create_connection((host, port), timeout=SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(self.pairs), PIPELINE):
                part = self.pairs[start : start + PIPELINE]
                connection.sendall(b"".join(request for request, _ in part))
                expected = b"".join(reply for _, reply in part)
                got = receive(connection, len(expected))
                if got != expected:
                    raise Failure(explain(part, got))


def receive(connection, size):
    """`size` bytes; fewer when no more come."""
    buffer = bytearray(size)
    view, filled = memoryview(buffer), 0
    while filled < size:
        try:
            count = connection.recv_into(view[filled:])
        except TimeoutError:
            count = 0
        if count == 0:
            break
        filled += count
    return bytes(buffer[:filled])


def explain(part, got):
    """Which of the replies is wrong, and how."""
    at = 0
    for request, reply in part:
        piece = got[at : at + len(reply)]
        if piece != reply:
            same = next((i for i, (a, b) in enumerate(zip(piece, reply)) if a != b), min(len(piece), len(reply)))
            return (
                f"wrong reply to {request[:80]!r}, {len(piece)} of {len(reply)} bytes, different from byte {same}:"
                f" {piece[same : same + 60]!r} instead of {reply[same : same + 60]!r}"
            )
        at += len(reply)
    return "wrong replies"


def hold_all(conversations, host, port):
    """All at once, each on a connection of its own."""
    failures = []

    def hold(conversation):
        try:
            conversation.hold(host, port)
        except (Failure, OSError) as failure:
            failures.append(failure)

    threads = [threading.Thread(target=hold, args=(conversation,)) for conversation in conversations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise Failure(str(failures[0]))


class Choice(random.Random):
    """Sizes as programs have them: many small ones, a few large."""

    def text(self, largest):
        size = min(int(self.paretovariate(0.7) * 16), largest)
        at = self.randrange(len(TEXT) - size)
        return TEXT[at : at + size]


def command(*words):
    """A request to redis."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def bulk(value):
    """A reply of redis that is a string, or none."""
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def number(value):
    """A reply of redis that is a number."""
    return b":%d\r\n" % value


def redis(seed, count):
    """Conversations with redis: one that works on strings, lists and hashes, one that reads all that is left."""
    choice, work, reading = Choice(seed), Conversation(), Conversation()
    strings, lists, hashes = {}, {}, {}
    for _ in range(count):
        kind, which = choice.randrange(10), b"%d:%d" % (seed, choice.randrange(count // 4))
        if kind < 3:
            strings[which] = choice.text(100_000)
            work.say(command(b"SET", b"s" + which, strings[which]), b"+OK\r\n")
        elif kind == 3:
            added = choice.text(2000)
            strings[which] = strings.get(which, b"") + added
            work.say(command(b"APPEND", b"s" + which, added), number(len(strings[which])))
        elif kind == 4:
            work.say(command(b"GET", b"s" + which), bulk(strings.get(which)))
        elif kind == 5:
            work.say(command(b"DEL", b"s" + which), number(strings.pop(which, None) is not None))
        elif kind < 8:
            held = lists.setdefault(which[:-1], [])
            held.append(choice.text(500))
            work.say(command(b"RPUSH", b"l" + which[:-1], held[-1]), number(len(held)))
        else:
            held, name = hashes.setdefault(which[:-2], {}), b"field-%d" % choice.randrange(300)
            new = name not in held
            held[name] = choice.text(300)
            work.say(command(b"HSET", b"h" + which[:-2], name, held[name]), number(new))
    for which, value in strings.items():
        reading.say(command(b"GET", b"s" + which), bulk(value))
    for which, values in lists.items():
        reply = b"*%d\r\n" % len(values) + b"".join(map(bulk, values))
        reading.say(command(b"LRANGE", b"l" + which, b"0", b"-1"), reply)
    for which, values in hashes.items():
        for name, value in values.items():
            reading.say(command(b"HGET", b"h" + which, name), bulk(value))
    reading.say(command(b"PING"), b"+PONG\r\n")
    return work, reading


def memcached(seed, count):
    """A conversation with memcached, with all that is left read at its end."""
    choice, work, held = Choice(seed), Conversation(), {}

    def get(key):
        value = held.get(key)
        found = b"" if value is None else b"VALUE %b 0 %d\r\n%b\r\n" % (key, len(value), value)
        work.say(b"get %b\r\n" % key, found + b"END\r\n")

    def store(verb, key, value, reply):
        work.say(b"%b %b 0 0 %d\r\n%b\r\n" % (verb, key, len(value), value), reply)

    for _ in range(count):
        kind, key = choice.randrange(10), b"%d:%d" % (seed, choice.randrange(count // 4))
        if kind < 4:
            held[key] = choice.text(600_000)
            store(b"set", key, held[key], b"STORED\r\n")
        elif kind < 6:
            get(key)
        elif kind == 6:
            value = choice.text(1000)
            if key in held and len(held[key]) < 600_000:
                held[key] += value
                store(b"append", key, value, b"STORED\r\n")
            elif key not in held:
                store(b"append", key, value, b"NOT_STORED\r\n")
        elif kind == 7:
            reply = b"NOT_FOUND\r\n" if held.pop(key, None) is None else b"DELETED\r\n"
            work.say(b"delete %b\r\n" % key, reply)
        elif kind == 8:
            value = choice.text(3000)
            store(b"add", key, value, b"NOT_STORED\r\n" if key in held else b"STORED\r\n")
            held.setdefault(key, value)
        else:
            keys = [key, *choice.choices(list(held) or [key], k=8)]
            found = [b"VALUE %b 0 %d\r\n%b\r\n" % (k, len(held[k]), held[k]) for k in keys if k in held]
            work.say(b"get %b\r\n" % b" ".join(keys), b"".join(found) + b"END\r\n")
    for key in list(held):
        get(key)
    work.say(b"mn\r\n", b"MN\r\n")
    return work
