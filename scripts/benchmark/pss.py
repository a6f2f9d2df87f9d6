"""Runs a command and prints the peak of the summed PSS of all processes of one program, sampled every 20 ms.

Usage: pss.py PROGRAM NAME COMMAND...  Processes are told by their executable file, so a container's process 1 counts where
it is this program, and a buildpack's shell does not. PSS shares out the pages that several of them map (proc(5)). A process that holds credentials
lets nobody look: where there is one, the largest resident set of all that was waited for (getrusage(2)) counts if it is more.
"""

import json
import os
import subprocess
import sys
import time

INTERVAL = 0.02


def executable(pid):
    status = os.stat(f"/proc/{pid}/exe")
    return status.st_dev, status.st_ino


def pss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def sample(program, first):
    total, processes, refused = 0, 0, 0
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) < first:
            continue
        try:
            if executable(name) == program:
                total += pss(name)
                processes += 1
        except PermissionError:
            refused += 1
        except (OSError, ProcessLookupError):
            pass
    return total, processes, refused


def main():
    path, name, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    status = os.stat(path)
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    peak, at_peak, samples, closed = 0, 0, 0, 0
    while True:
        ended, ending, usage = os.wait4(child.pid, os.WNOHANG)
        if ended:
            break
        total, processes, refused = sample((status.st_dev, status.st_ino), child.pid)
        samples += 1
        closed = max(closed, refused)
        if total > peak:
            peak, at_peak = total, processes
        time.sleep(INTERVAL)
    code = os.waitstatus_to_exitcode(ending)
    if code:
        sys.exit(f"{name}: the command ended with {code}")
    if closed and usage.ru_maxrss > peak:
        peak, at_peak = usage.ru_maxrss, closed
    print(json.dumps({"name": name, "peak_kib": peak, "processes": at_peak, "samples": samples}))


main()
