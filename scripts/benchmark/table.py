"""Prints the results of scripts/bench in a folder as tables. Usage: table.py FOLDER"""

import json
import os
import pathlib
import statistics
import sys

CORES = os.cpu_count()

TITLES = {
    "start": "The program says something of itself, milliseconds",
    "container": "One container, milliseconds",
    "container-ready": "One container where the outer namespaces exist already, milliseconds",
    "pull": "Builder from the registry to a root filesystem, seconds",
    "cold": "Cold build, seconds",
    "rebuild": "Rebuild with nothing changed, seconds",
    "tree": "Rebuild by size and number of a cached layer's files, seconds",
    "changed": "Rebuild after a change of the source, seconds",
    "changed-files": "Rebuild after a change of one of many source files, seconds",
    "stays": "Rebuild with nothing changed that stays in the local store, seconds",
    "export": "Export of a new layer, seconds",
    "compression": "Export of a new layer of 178 MB by its compression, seconds",
    "detect": "Detection of 100 buildpacks in 20 groups, milliseconds",
    "launcher": "Start of a process with the variables of 3 buildpacks, milliseconds",
    "confine": "A phase's process confines itself, milliseconds",
    "isolation": "Rebuild in which there is nothing to do, by who shares a container, milliseconds",
    "isolation-kept": "Rebuild that restores and exports a layer of 178 MB, by who shares a container, seconds",
    "layers": "Rebuild in which a later buildpack runs beside a build layer, seconds",
    "pack-cold": "Cold build beside pack with a Docker daemon, seconds",
    "pack-rebuild": "Rebuild with nothing changed beside pack with a Docker daemon, seconds",
    "overhead": "Rebuild in which there is nothing to do, milliseconds",
}


def rows(title, unit, named):
    print(f"\n{title}\n\n| what | median | min | max | standard deviation | runs |\n|---|---:|---:|---:|---:|---:|")
    for name, times in named:
        times = [time * unit for time in times]
        digits = 2 if unit == 1 or max(times) < 10 else 1
        spread = statistics.stdev(times) if len(times) > 1 else 0
        cells = [statistics.median(times), min(times), max(times), spread]
        print(f"| {name} | " + " | ".join(f"{cell:.{digits}f}" for cell in cells) + f" | {len(times)} |")


def label(result):
    failed = sum(code != 0 for code in result.get("exit_codes", []))
    return result["command"] + (f" ({failed} failed)" if failed else "")


def main():
    folder = pathlib.Path(sys.argv[1])

    def read(name):
        path = folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    for name, title in TITLES.items():
        if (results := read(name)) is None:
            continue
        named = [(label(result), result["times"]) for result in results["results"]]
        if own := read(f"{name}-buildpack"):
            named.append(("of that, the buildpack's own time", [ms / 1000 for ms in own["milliseconds"]]))
        rows(title, 1000 if "milliseconds" in title else 1, named)
    if eight := read("eight"):
        print("\nEight builds of eight applications at once\n")
        print("| what | seconds, median | processors' seconds | of these the registry's | a core's share | wall by share | runs |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for name in dict.fromkeys(entry["name"] for entry in eight):
            entries = [entry for entry in eight if entry["name"] == name]
            wall, used, registry = (statistics.median(entry[key] for entry in entries) for key in ("wall", "processor", "registry"))
            share = used / CORES
            by_share = statistics.median(entry["wall"] / (entry["processor"] / CORES) for entry in entries)
            print(f"| {name} | {wall:.2f} | {used:.2f} | {registry:.2f} | {share:.2f} | {by_share:.2f} | {len(entries)} |")
        print("\nLocks that were waited for, process-seconds in the median run\n\n| what | lock | waited |\n|---|---|---:|")
        for name in dict.fromkeys(entry["name"] for entry in eight):
            entries = [entry["waited"] for entry in eight if entry["name"] == name]
            for lock in sorted({lock for waited in entries for lock in waited}):
                print(f"| {name} | {lock} | {statistics.median(waited.get(lock, 0) for waited in entries):.3f} |")
    if sizes := read("compression-sizes"):
        print("\nThe layer's blob, MB\n\n| compression | size |\n|---|---:|")
        for name, size in sizes.items():
            print(f"| {name} | {size / 1e6:.1f} |")
    if memory := read("memory"):
        print("\nPeak of summed PSS of Coracle's processes, MiB\n\n| what | median | max | runs |\n|---|---:|---:|---:|")
        for name in dict.fromkeys(entry["name"] for entry in memory):
            peaks = [entry["peak_kib"] / 1024 for entry in memory if entry["name"] == name]
            print(f"| {name} | {statistics.median(peaks):.1f} | {max(peaks):.1f} | {len(peaks)} |")


main()
