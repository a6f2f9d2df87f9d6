"""Runs a command and prints the peak of the summed PSS of all processes of one program, sampled every 20 ms.

Usage: pss.py PROGRAM NAME COMMAND...  Processes are told by their executable file, so a container's process 1 counts where
it is this program, and a buildpack's shell does not. PSS shares out the pages that several of them map (proc(5)). A process that holds credentials
lets nobody look: of those below the command the resident set counts (`VmRSS`), which is more than their share.
"""

import json
import os
import subprocess
import sys
import time

INTERVAL = 0.02


def executable(pid):
    file = os.stat(f"/proc/{pid}/exe")
    return file.st_dev, file.st_ino


def pss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def status(pid):
    with open(f"/proc/{pid}/status") as lines:
        return dict(line.rstrip().split(":\t", 1) for line in lines if ":\t" in line)


def descends(pid, first):
    """Whether a process is the command's, or one below it."""
    while pid >= first:
        if pid == first:
            return True
        pid = int(status(pid)["PPid"])
    return False


def sample(program, first):
    total, processes = 0, 0
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) < first:
            continue
        try:
            try:
                if executable(name) != program:
                    continue
                total += pss(name)
            except PermissionError:
                if not descends(int(name), first):
                    continue
                total += int(status(name).get("VmRSS", "0").split()[0])
            processes += 1
        except (OSError, KeyError, ValueError):
            pass
    return total, processes


def main():
    path, name, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    about = os.stat(path)
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    peak, at_peak, samples = 0, 0, 0
    while True:
        ended, ending = os.waitpid(child.pid, os.WNOHANG)
        if ended:
            break
        total, processes = sample((about.st_dev, about.st_ino), child.pid)
        samples += 1
        if total > peak:
            peak, at_peak = total, processes
        time.sleep(INTERVAL)
    code = os.waitstatus_to_exitcode(ending)
    if code:
        sys.exit(f"{name}: the command ended with {code}")
    print(json.dumps({"name": name, "peak_kib": peak, "processes": at_peak, "samples": samples}))


main()
