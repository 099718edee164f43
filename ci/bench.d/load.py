"""The load tool's processes, see bench/main.rs."""

import json
import select
import subprocess

# Tunnels per process of the client: with 20,000 descriptors each there is room left.
PER_PROCESS = 15_000

PATIENCE = 180


class LoadError(Exception):
    """The load tool failed: a byte differed, or no connection at all."""


class Wsload:
    """The program at a path."""

    def __init__(self, path):
        self.path = path

    def run(self, command, url, **settings):
        """One run of `command`; its result."""
        words = [f"{name}={value}" for name, value in settings.items()]
        done = subprocess.run([self.path, command, url, *words], text=True, timeout=PATIENCE,
                              capture_output=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise LoadError(done.stderr.strip() or f"{command}: status {done.returncode}")
        return json.loads(done.stdout)

    def start(self, command, url, **settings):
        """The same without waiting; `result()` of what is returned waits."""
        return Running(self.path, command, url, settings)

    def tunnels(self, url):
        """Tunnels to hold, none yet."""
        return Tunnels(self.path, url)


class Running:
    """A run under way."""

    def __init__(self, path, command, url, settings):
        words = [f"{name}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen([path, command, url, *words], text=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def result(self):
        """What it printed."""
        out, _ = self.process.communicate(timeout=PATIENCE)
        if self.process.returncode:
            raise LoadError(f"status {self.process.returncode}")
        return json.loads(out)


class Tunnels:
    """Open tunnels, in as many processes as it takes."""

    def __init__(self, path, url):
        self.path, self.url, self.clients, self.open = path, url, [], 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client, _ in self.clients:
            client.stdin.close()
        for client, _ in self.clients:
            client.wait(30)
            client.stdout.close()

    def _tell(self, client, line):
        client.stdin.write(line + "\n")
        client.stdin.flush()
        if not select.select([client.stdout], [], [], PATIENCE)[0]:
            client.kill()
            raise LoadError(f"no answer to {line}")
        answer = client.stdout.readline()
        if not answer:
            raise LoadError(f"{line}: it ended with status {client.wait(10)}")
        return json.loads(answer)

    def grow(self, count):
        """Opens more, up to `count` in all. Whether there are so many now."""
        while self.open < count:
            if not self.clients or self.clients[-1][1] >= PER_PROCESS:
                # Sixteen addresses each.
                source = f"127.0.{len(self.clients)}.2"
                client = subprocess.Popen(
                    [self.path, "tunnels", self.url, f"source={source}"], text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self.clients.append((client, 0))
            client, has = self.clients[-1]
            answer = self._tell(client, f"open {min(count - self.open, PER_PROCESS - has)}")
            self.clients[-1] = (client, answer["open"])
            self.open += answer["open"] - has
            if answer["failed"]:
                return False
        return True

    def echo(self, size, seconds, count=None):
        """Messages there and back on the newest `count`, all of them in one process."""
        client, has = self.clients[-1]
        return self._tell(client, f"echo {size} {seconds} {min(has, count or has)}")

    def check(self):
        """How many answer."""
        return sum(self._tell(client, "check")["alive"] for client, _ in self.clients)
