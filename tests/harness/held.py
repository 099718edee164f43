"""A thread of another process that is held where it is, by ptrace(2)."""

import ctypes
import os
import threading

SEIZE, INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Held:
    """`with Held(thread id): ...`; it runs again afterwards, if it still lives."""

    def __init__(self, thread):
        self.thread, self._failure = thread, None
        self._is_held, self._over = threading.Event(), threading.Event()
        # Whoever traces must be one thread, whose end lets go.
        self._tracer = threading.Thread(target=self._trace)

    def _trace(self):
        try:
            for request in (SEIZE, INTERRUPT):
                if _libc.ptrace(request, self.thread, None, None) != 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            os.waitpid(self.thread, WALL)
        except OSError as error:
            self._failure = error
        self._is_held.set()
        self._over.wait()

    def __enter__(self):
        self._tracer.start()
        self._is_held.wait()
        if self._failure:
            self._over.set()
            raise self._failure
        return self

    def __exit__(self, *_):
        self._over.set()
        self._tracer.join()
