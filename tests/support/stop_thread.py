"""Stops one thread of a process, chosen by its name, and keeps it stopped until the process ends.

Usage: stop_thread.py PID NAME
Signals stop whole processes; a tracer can stop one thread, and must stay for as long as it is to be stopped.
"""

import ctypes
import os
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WAIT_FOR_THREADS = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def thread_called(pid, name):
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as comm:
            if comm.read().strip() == name:
                return int(thread)
    raise SystemExit(f"process {pid} has no thread called {name}")


def main():
    pid, name = int(sys.argv[1]), sys.argv[2]
    thread = thread_called(pid, name)
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    while True:
        _, status = os.waitpid(thread, WAIT_FOR_THREADS)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return


main()
