"""Both ends of the tunnels, as programs: the clients, and back ends that can be killed."""

import os
import signal
import subprocess
import threading
import time

from harness import stresspeer
from harness.ports import Port
from ledger import Ledger


class Backend:
    """A back end at a port that stays its own; `certificate` for one with TLS."""

    def __init__(self, number, certificate=None):
        self.number, self.certificate = number, certificate
        self.port, self.failures = Port(), []
        self.start()

    @property
    def url(self):
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port.number}/"

    def start(self):
        """Starts it, and waits until it listens."""
        files = [self.certificate.cert, self.certificate.key] if self.certificate else []
        self.process = subprocess.Popen([stresspeer.program(), "soak-backend", str(self.port.number), *files], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        line = self.process.stdout.readline()
        assert line == "listening\n", (self.number, line)
        threading.Thread(target=self._hear, args=[self.process.stdout], daemon=True).start()

    def _hear(self, lines):
        for line in lines:
            self.failures.append(f"back end {self.number}: {line.strip()}")

    def freeze(self):
        """Nothing moves in it."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def kill(self):
        """It is gone."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def stop(self):
        """Ends it, and gives its port back."""
        self.process.stdin.close()
        self.process.wait(20)
        self.port.release()


class Clients:
    """The program of all clients. `ledger` is the book of their tunnels: read it under `lock`."""

    def __init__(self, **words):
        self.ledger, self.lock = Ledger(), threading.Lock()
        self._answers, self._came = [], threading.Condition()
        arguments = [f"{name}={value}" for name, value in words.items()]
        self.process = subprocess.Popen([stresspeer.program(), "soak-clients", *arguments], text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        self._marks = 0
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self):
        for line in self.process.stdout:
            words = line.split()
            if words[0] in ("try", "open", "end", "late"):
                with self.lock:
                    self.ledger.hear(words)
            else:
                self._answer(words)
        self._answer(["over"])

    def _answer(self, words):
        with self._came:
            self._answers.append(words)
            self._came.notify()

    def ask(self, command, answer, patience):
        """Gives a command, and returns the words of the answer to it."""
        self.process.stdin.write(f"{command}\n")
        return self.wait(answer, patience)

    def wait(self, answer, patience):
        end = time.monotonic() + patience
        with self._came:
            while True:
                for words in self._answers:
                    if words[:len(answer)] == answer:
                        self._answers.remove(words)
                        return words
                left = end - time.monotonic()
                assert left > 0, f"no {answer} of the clients within {patience:.0f} s"
                self._came.wait(left)

    def catch_up(self):
        """Whatever they saw until now is in the book."""
        self._marks += 1
        self.ask(f"mark {self._marks}", ["here", str(self._marks)], 60)

    def quiet(self, patience):
        """They begin and end nothing until `go`; how many tunnels are open, all of which have just answered."""
        return int(self.ask("quiet", ["quiet"], patience)[1])

    def go(self):
        self.process.stdin.write("go\n")

    def end(self, patience):
        """All leave."""
        self.ask("end", ["over"], patience)
        assert self.process.wait(10) == 0

    @property
    def open(self):
        with self.lock:
            return self.ledger.open
