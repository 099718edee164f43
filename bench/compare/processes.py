"""A server's processes: those of the session it was started in, children and grandchildren too."""

import os
import signal
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")

# What the kernel holds for each thread beside what PSS counts.
KERNEL_STACK_KIB = 16


def _stat(pid):
    """The fields of /proc/PID/stat from the third on: the second may contain spaces."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


class Session:
    """A program started in a session of its own. Ends with it."""

    # Those that were not stopped.
    running = []

    def __init__(self, command, directory, **options):
        self.log = open(directory / "output.log", "ab")
        self.process = subprocess.Popen(
            [str(word) for word in command], cwd=directory, start_new_session=True,
            stderr=self.log, **{"stdin": subprocess.DEVNULL, "stdout": self.log, **options})
        self.pid = self.process.pid
        Session.running.append(self)

    @staticmethod
    def stop_all():
        """Stops all that run."""
        for session in list(Session.running):
            session.stop()

    def pids(self):
        """Every process of the session."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    fields = _stat(name)
                except OSError:
                    continue
                # The session is the sixth field of all; a zombie is no process any more.
                if int(fields[3]) == self.pid and fields[0] != "Z":
                    found.append(int(name))
        return found

    def cpu(self):
        """CPU seconds so far, user and system: of those that live, to the nanosecond by their
        CPU clocks (clock_getcpuclockid(3)), and of those they have reaped."""
        total = 0.0
        for pid in self.pids():
            try:
                total += time.clock_gettime(~pid << 3 | 2)
                fields = _stat(pid)
            except (OSError, ProcessLookupError):
                continue
            total += (int(fields[13]) + int(fields[14])) / TICKS
        return total

    def memory(self):
        """KiB in use: (PSS, the same with page tables and kernel stacks)."""
        pss = tables = threads = 0
        for pid in self.pids():
            try:
                pss += _field(f"/proc/{pid}/smaps_rollup", "Pss:")
                tables += _field(f"/proc/{pid}/status", "VmPTE:")
                threads += _field(f"/proc/{pid}/status", "Threads:")
            except (OSError, ProcessLookupError):
                continue
        return pss, pss + tables + threads * KERNEL_STACK_KIB

    def threads(self):
        """Threads of all processes."""
        total = 0
        for pid in self.pids():
            try:
                total += _field(f"/proc/{pid}/status", "Threads:")
            except (OSError, ProcessLookupError):
                continue
        return total

    def stop(self):
        """Ends them all, at once."""
        if self not in Session.running:
            return
        Session.running.remove(self)
        if self.process.stdin:
            self.process.stdin.close()
        deadline = time.monotonic() + 20
        # The process that was started first: no parent is left to replace the others.
        for number in (signal.SIGTERM, signal.SIGKILL):
            grace = min(deadline, time.monotonic() + 3)
            self._kill([self.pid] if number == signal.SIGTERM else self.pids(), number)
            while time.monotonic() < grace and (self.process.poll() is None or self.pids()):
                time.sleep(0.02)
        self.process.wait(10)
        while self.pids() and time.monotonic() < deadline:
            self._kill(self.pids(), signal.SIGKILL)
            time.sleep(0.02)
        self.log.close()

    @staticmethod
    def _kill(pids, number):
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def _field(path, name):
    with open(path) as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1])
    return 0
