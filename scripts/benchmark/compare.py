"""Prints what scripts/bench --compare has measured, two commits side by side. Usage: compare.py FOLDER COMMIT COMMIT"""

import json
import pathlib
import statistics
import sys


def times(folder):
    """Seconds of all runs, by what was measured."""
    found = {}
    for path in sorted(folder.glob("*/*.json")):
        results = json.loads(path.read_text())
        for result in results.get("results", []) if isinstance(results, dict) else []:
            found.setdefault(f"{path.stem}: {result['command']}", []).extend(result["times"])
    return found


def main():
    folder, *commits = sys.argv[1:]
    one, two = (times(pathlib.Path(folder, commit)) for commit in commits)
    short = [commit[:10] for commit in commits]
    print(f"\n| median, seconds | {short[0]} | {short[1]} | change | smallest | runs |\n|---|---:|---:|---:|---:|---:|")
    for name in (name for name in one if name in two):
        before, after = statistics.median(one[name]), statistics.median(two[name])
        least = f"{min(one[name]):.3f}, {min(two[name]):.3f}"
        change = 100 * (after / before - 1)
        print(f"| {name} | {before:.3f} | {after:.3f} | {change:+.0f} % | {least} | {len(one[name])}, {len(two[name])} |")


main()
