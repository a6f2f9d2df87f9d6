"""Runs a command eight times at once, `{}` in it being 1 to 8, and prints what that took as JSON: seconds by the clock, seconds of all
processors, those of the registry among them, and how long files were waited for that are locked, as far as looking every few
milliseconds shows (/proc/locks). Usage: eight.py NAME PID-OF-REGISTRY HOME LOG -- COMMAND..."""

import collections
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

EVERY = 0.003


def processor(pid):
    """Seconds that a process has used, proc_pid_stat(5)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(waits, ended):
    """Counts waiting processes by the inode that they wait for until `ended`."""
    last = time.monotonic()
    while not ended.wait(EVERY):
        now = time.monotonic()
        for line in pathlib.Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "->" and words[2] == "FLOCK":
                waits[int(words[6].rpartition(":")[2])] += now - last
        last = now


def main():
    name, registry, home, log = sys.argv[1:5]
    command = sys.argv[6:]
    waits, ended = collections.Counter(), threading.Event()
    watching = threading.Thread(target=watch, args=(waits, ended))
    before, began = processor(registry), time.monotonic()
    watching.start()
    with open(log, "a", encoding="utf-8") as output:
        builds = [
            subprocess.Popen([word.replace("{}", str(number)) for word in command], stdout=output, stderr=output)
            for number in range(1, 9)
        ]
        used = 0
        for build in builds:
            _, status, usage = os.wait4(build.pid, 0)
            build.returncode = os.waitstatus_to_exitcode(status)
            used += usage.ru_utime + usage.ru_stime
    wall = time.monotonic() - began
    ended.set()
    watching.join()
    if failed := sum(build.returncode != 0 for build in builds):
        sys.exit(f"{failed} of 8 builds failed; see {log}")
    of_registry = processor(registry) - before
    named = {}
    for folder in (pathlib.Path(home), pathlib.Path(home, "store", "locks"), pathlib.Path(home, "caches")):
        for path in folder.iterdir() if folder.is_dir() else ():
            named[path.lstat().st_ino] = str(path.relative_to(home))
    waited = collections.Counter()
    for inode, seconds in waits.items():
        path = named.get(inode, "another file")
        waited["store/locks/layer" if path.startswith("store/locks/layer-") else path] += seconds
    print(json.dumps({"name": name, "wall": wall, "processor": used + of_registry, "registry": of_registry, "waited": waited}))


main()
