"""The servers that hold keys and values: redis and memcached."""

import time

import conversations
from measure import Failure
from servers import HOST, Server, tool


class Redis(Server):
    """Conversations in which all replies are known, then its own benchmark, then all values once more."""

    name = "redis"
    # All that it calls of jemalloc by other names than malloc's are figures, and the advice to give memory back.
    what = "known replies, redis-benchmark; Debian links it to jemalloc, which is system here"
    CONNECTIONS = 4
    COMMANDS = 20_000

    def prepare(self, session):
        made = [conversations.redis(seed, self.COMMANDS) for seed in range(self.CONNECTIONS)]
        self.work, self.reading = zip(*made)

    def program(self):
        return "/usr/bin/redis-server"

    def options(self, directory, port):
        places = ["--bind", HOST, "--port", port, "--dir", directory]
        return [*places, "--save", "", "--appendonly", "no", "--enable-debug-command", "local"]

    def load(self, directory, port):
        begin = time.perf_counter()
        conversations.hold_all(self.work, HOST, port)
        digest = tool("redis-cli", "-h", HOST, "-p", port, "debug", "digest", directory=directory)
        bench = ["-h", HOST, "-p", port, "-n", "40000", "-c", "20", "-P", "4", "-d", "300", "-r", "20000", "-q"]
        tests = "set,get,incr,lpush,rpush,lpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"
        said = tool("redis-benchmark", *bench, "-t", tests, directory=directory)
        if "rror" in said or said.count("requests per second") < len(tests.split(",")):
            raise Failure(f"redis-benchmark says: {said[-2000:]}")
        conversations.hold_all(self.reading, HOST, port)
        return time.perf_counter() - begin, f"digest {digest}"


class Memcached(Server):
    """Conversations in which all replies are known, and connections that come and go."""

    name = "memcached"
    what = "known replies, connections that come and go"
    CONNECTIONS = 4
    COMMANDS = 40_000
    SHORT = 300

    def prepare(self, session):
        self.work = [conversations.memcached(seed, self.COMMANDS) for seed in range(self.CONNECTIONS)]
        self.short = [conversations.memcached(100 + seed, 40) for seed in range(self.SHORT)]

    def program(self):
        return "/usr/bin/memcached"

    def options(self, directory, port):
        # No value is to be dropped for want of room.
        return ["-l", HOST, "-p", port, "-U", "0", "-m", "1024", "-I", "2m", "-t", "4", "-c", "2000", "-u", "root"]

    def load(self, directory, port):
        begin = time.perf_counter()
        conversations.hold_all(self.work, HOST, port)
        for start in range(0, self.SHORT, 30):
            conversations.hold_all(self.short[start : start + 30], HOST, port)
        return time.perf_counter() - begin, ""
