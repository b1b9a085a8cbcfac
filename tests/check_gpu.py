"""Test and time on a GPU all that runs there, from the source tree: `make check-gpu`, or `python tests/check_gpu.py`.

It runs the tests of tests/gpu, then `sppnet benchmark` of pooling, detection and pre-training in fp32 and bf16, and writes one
JSON file: the card, the versions, the outcome of every test, what the benchmarks measured, and the goals.  It needs torch 2.11 or
newer as it is found, pytest and sppnet's other dependencies apart from OpenCV and defusedxml, and takes at most 8 minutes.

Exit code: 0 where all tests passed and all benchmarks ran, 1 where not, 3 without a GPU or without a torch that will do.
A goal that is missed is no failure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 480
_SHARE_OF_TESTS = 0.5  # of the time, at most
PRECISIONS = ("fp32", "bf16")
BENCHMARKS = {
    "pooling": ("--repeats", "20"),
    "detect": ("--rcnn-windows", "all", "--repeats", "3"),
    "pretrain": ("--batch", "128", "--batches", "40", "--repeats", "2"),
}


def main() -> int:
    """Run everything; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results/check-gpu.json"), help="the JSON file")
    out = parser.parse_args().out
    missing = what_is_missing()
    if missing:
        print(f"check-gpu: {missing}", file=sys.stderr)
        return 3
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        tests = run_tests(Path(scratch) / "tests.xml", _SHARE_OF_TESTS * SECONDS)
        benchmarks = {}
        for precision in PRECISIONS:
            for subject in BENCHMARKS:
                left = SECONDS - (time.monotonic() - start)
                name = f"{subject}_{precision}"
                benchmarks[name] = run_benchmark(subject, precision, Path(scratch) / precision, left)
    record = {
        **machine(),
        "seconds": round(time.monotonic() - start, 1),
        "tests": tests,
        "benchmarks": benchmarks,
        "goals": goals(benchmarks),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")
    print_summary(record, out)
    good = (
        not tests["failed"] and tests["passed"] and not any("error" in each for each in benchmarks.values())
    )
    return 0 if good else 1


def what_is_missing() -> str | None:
    """Why nothing can be checked here, in one line."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11):
        return f"torch {torch.__version__} is older than 2.11"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU; nothing was checked"
    return None


def machine() -> dict[str, object]:
    """The card and the versions."""
    import torch

    from sppnet_cli.provenance import environment

    card = torch.cuda.get_device_properties(0)
    return {
        "card": card.name,
        "memory_gib": round(card.total_memory / 2**30, 1),
        "cores": os.cpu_count(),
        "cuda": torch.version.cuda,
        **environment(),
    }


def run_tests(report: Path, seconds: float) -> dict[str, object]:
    """Run the tests marked gpu, whatever else this Python warns of; what has not ended in time has failed."""
    command = [
        *("-m", "pytest", "-q", "-m", "gpu", "-c", str(ROOT / "setup.cfg"), "--rootdir", str(ROOT)),
        *("-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider"),
        *(f"--junitxml={report}", str(ROOT / "tests" / "gpu")),
    ]
    problem = call(command, seconds, None)
    found: dict[str, object] = {"passed": 0, "failed": [], "skipped": []}
    names: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for case in ElementTree.parse(report).iter("testcase") if report.is_file() else ():
        inside = {child.tag for child in case}
        outcome = (
            "failed" if inside & {"failure", "error"} else "skipped" if "skipped" in inside else "passed"
        )
        names[outcome].append(f"{case.get('classname')}.{case.get('name')}")
    if problem and not names["failed"]:
        names["failed"].append(problem)
    return found | names | {"passed": len(names["passed"])}


def run_benchmark(subject: str, precision: str, folder: Path, seconds: float) -> dict[str, object]:
    """The record of a benchmark, or `{"error": ...}`."""
    command = [
        *("-m", "sppnet_cli", "benchmark", subject, "--device", "cuda", "--precision", precision),
        *("--out", str(folder), "--quiet", *BENCHMARKS[subject]),
    ]
    problem = call(command, seconds, folder)
    path = folder / f"{subject}.json"
    if problem or not path.is_file():
        return {"error": problem or "it wrote nothing"}
    record: dict[str, object] = json.loads(path.read_text())
    return record


def call(command: list[str], seconds: float, folder: Path | None) -> str | None:
    """Run Python in the source tree for at most so long; returns what went wrong."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if seconds <= 0:
        return "there was no time left for it"
    print(f"check-gpu: {' '.join(command[1:5])} ...", file=sys.stderr)
    try:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it did not end in {seconds:.0f} s"
    return f"exit code {done.returncode}" if done.returncode else None


def goals(benchmarks: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """What is wanted of the speed on a GPU, beside what was measured."""
    found: dict[str, dict[str, object]] = {}

    def add(name: str, wanted: str, value: float) -> None:
        sign, bound = wanted.split()
        met = value <= float(bound) if sign == "<=" else value >= float(bound)
        found[name] = {"wanted": wanted, "measured": round(value, 4), "met": met}

    for precision in PRECISIONS:
        pooling, detect, pretrain = (benchmarks.get(f"{subject}_{precision}", {}) for subject in BENCHMARKS)
        if "seconds" in pooling:
            add(f"pooling_times_write_limit_{precision}", "<= 2", pooling["times_write_limit"])
            add(f"pooling_speedup_vs_roi_pool_{precision}", ">= 10", pooling["speedup_vs_roi_pool"])
        for side in ("spp_1scale", "spp_5scale") if "rcnn" in detect else ():
            own = detect[side]
            add(f"{side}_times_bare_{precision}", "<= 1.5", own["times_bare"])
            share = own["speedup_vs_rcnn"] / own["flops_ratio"]
            add(f"{side}_speedup_as_share_of_arithmetic_{precision}", ">= 0.8", share)
        if "from_files" in pretrain:
            share = pretrain["from_files"]["share_of_tensors"]
            add(f"pretrain_from_files_as_share_of_tensors_{precision}", ">= 0.9", share)
    return found


def print_summary(record: dict[str, object], out: Path) -> None:
    """A few lines for a person."""
    tests = record["tests"]
    print(
        f"{record['card']}: {tests['passed']} passed, {len(tests['failed'])} failed, {len(tests['skipped'])} skipped"
    )
    for name in tests["failed"]:
        print(f"  failed: {name}")
    for name, each in record["benchmarks"].items():
        if "error" in each:
            print(f"  benchmark {name}: {each['error']}")
    for name, goal in record["goals"].items():
        print(f"  {name}: {goal['measured']} (wanted {goal['wanted']}{'' if goal['met'] else ', missed'})")
    print(f"{record['seconds']} s; written to {out}")


if __name__ == "__main__":
    sys.exit(main())
