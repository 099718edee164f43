"""The load tool's processes, see bench/main.rs."""

import json
import select
import subprocess
import time

# Tunnels per process of the client, if its descriptors allow.
PER_PROCESS = 15_000

PATIENCE = 180

# Handshakes that were refused are tried again, as one child or worker may be full before the
# others are. So many refused in a row, or for so long, and there is no room anywhere.
REFUSED_ENOUGH, REFUSED_SECONDS = 64, 4


class LoadError(Exception):
    """The load tool failed: a byte differed, or no connection at all."""


class Wsload:
    """The program at a path."""

    def __init__(self, path, descriptors):
        self.path, self.per_process = path, min(PER_PROCESS, descriptors - 100)

    def run(self, command, url, **settings):
        """One run of `command`; its result."""
        return self.start(command, url, **settings).result()

    def start(self, command, url, **settings):
        """The same without waiting; `result()` of what is returned waits."""
        return Running(self.path, command, url, settings)

    def tunnels(self, url):
        """Tunnels to hold, none yet."""
        return Tunnels(self.path, url, self.per_process)


class Running:
    """A run under way."""

    def __init__(self, path, command, url, settings):
        words = [f"{name}={value}" for name, value in settings.items()]
        self.command = command
        self.process = subprocess.Popen([path, command, url, *words], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)

    def result(self):
        """What it printed. Its standard input ends now."""
        try:
            out, errors = self.process.communicate(timeout=PATIENCE)
        finally:
            self.end()
        if self.process.returncode:
            raise LoadError(errors.strip() or f"{self.command}: status {self.process.returncode}")
        return json.loads(out)

    def end(self):
        """Ends it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Tunnels:
    """Open tunnels, in as many processes as it takes."""

    def __init__(self, path, url, per_process):
        self.path, self.url, self.per_process = path, url, per_process
        self.clients, self.open, self.error = [], 0, ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client, _ in self.clients:
            try:
                client.stdin.close()
            except BrokenPipeError:
                pass
        for client, _ in self.clients:
            try:
                client.wait(10)
            except subprocess.TimeoutExpired:
                client.kill()
                client.wait()
            client.stdout.close()

    def _tell(self, client, line):
        self._say(client, line)
        return self._answer(client, line)

    @staticmethod
    def _say(client, line):
        client.stdin.write(line + "\n")
        client.stdin.flush()

    @staticmethod
    def _answer(client, line):
        if not select.select([client.stdout], [], [], PATIENCE)[0]:
            client.kill()
            raise LoadError(f"no answer to {line}")
        answer = client.stdout.readline()
        if not answer:
            raise LoadError(f"{line}: it ended with status {client.wait(10)}")
        return json.loads(answer)

    def grow(self, count):
        """Opens more, up to `count` in all. Whether there are so many now; if not, `error` has
        the reason."""
        refused, since = 0, time.monotonic()
        while self.open < count:
            if not self.clients or self.clients[-1][1] >= self.per_process:
                # Sixteen addresses each.
                source = f"127.0.{len(self.clients)}.2"
                client = subprocess.Popen(
                    [self.path, "tunnels", self.url, f"source={source}"], text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self.clients.append((client, 0))
            client, has = self.clients[-1]
            answer = self._tell(client, f"open {min(count - self.open, self.per_process - has)}")
            self.clients[-1] = (client, answer["open"])
            self.open += answer["open"] - has
            if answer["open"] > has:
                refused, since = 0, time.monotonic()
            elif answer["failed"]:
                self.error = answer["error"]
                refused += answer["failed"]
                if refused >= REFUSED_ENOUGH or time.monotonic() - since > REFUSED_SECONDS:
                    return False
        return True

    def grow_all(self, count):
        """The same where fewer are of no use."""
        if not self.grow(count):
            raise LoadError(f"{self.open:,} of {count:,} tunnels: {self.error}")

    def echo(self, size, seconds, count=None):
        """Messages there and back on the newest `count`, all of them in one process."""
        client, has = self.clients[-1]
        result = self._tell(client, f"echo {size} {seconds} {min(has, count or has)}")
        if result["failed"] or not result["messages"]:
            raise LoadError(f"{result['failed']} of {result['tunnels']} tunnels failed in echo, "
                            f"after {result['messages']} messages")
        return result

    def storm(self, seconds, begin):
        """Calls `begin`, which ends them all, and has each opened again at once, for so long at
        most: how many are open then, how many attempts failed, and how long that took."""
        line = f"storm {seconds}"
        for client, _ in self.clients:
            self._say(client, line)
        begun = time.monotonic()
        begin()
        answers = [self._answer(client, line) for client, _ in self.clients]
        took = time.monotonic() - begun
        self.clients = [(client, answer["open"])
                        for (client, _), answer in zip(self.clients, answers)]
        self.open = sum(answer["open"] for answer in answers)
        return self.open, sum(answer["failed"] for answer in answers), took

    def check(self):
        """How many answer."""
        return sum(self._tell(client, "check")["alive"] for client, _ in self.clients)
