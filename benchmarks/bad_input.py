"""Give the real command line every bad input a user may bring, and record how each one ends.

Run it from the root of the repository; it writes one record:

    python benchmarks/bad_input.py --out results/bad_input.json

A refusal must be exit code 2 and exactly one line on stderr that names what is wrong and what to do, with no file
lost or changed, and none written but those a case names; input that is merely odd must work. A full disk and a
read-only one are real: a small tmpfs in a mount namespace of its own. The exit code is 0 only where every case passes.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bad_input_cases import TRAIN, TRAIN_LM, Case, bad_data, bad_files, bad_luck, bad_runs, odd_data
from bad_input_language import bad_language, odd_language
from safetensors import safe_open

from karui.files import atomic_write
from karui.report import write_record

KARUI = Path(sys.executable).with_name("karui")
PRIVATE = ["unshare", "--map-root-user", "--mount"]
# "disk" is a tmpfs for the time of one command; what it holds at the end is copied to "after".
DISKS = {
    "full": "size=800k tmpfs disk && cp -r run model.karui disk"
    " && (head -c 9000000 /dev/zero > disk/ballast 2> /dev/null; true) && ",
    "nearly full": "size=400k tmpfs disk && ",
    "read-only": "size=800k tmpfs disk && cp -r run model.karui disk && mount -o remount,ro disk && ",
}


def prepare(folder: Path) -> None:
    """Write the inputs and train the run and the file that the cases use."""
    rows = [
        f"the film was {word} in part {i}"
        for i in range(12)
        for word in ("lovely", "moving", "dull", "awful")
    ]
    reviews = "".join(f"{row},{'good' if 'ov' in row else 'bad'}\n" for row in rows)
    inputs = {
        "unnamed.csv": "a,b,c\n" + "one film,x,y\nanother film,y,x\n" * 9,
        "latin1.csv": "text,label\nfine,good\ncaf\xe9,bad\n".encode("latin-1"),
        "latin1.jsonl": '{"text": "a", "label": "x"}\n{"text": "\xe9", "label": "y"}\n'.encode("latin-1"),
        "ragged.csv": "text,label\nfine,good\nbad, really bad,bad\n",
        "broken.jsonl": '{"text": "a", "label": "x"}\n{"text": "b", \n',
        "one_class.csv": "text,label\n" + "a fine film,good\n" * 20,
        "empty.csv": "",
        "header.csv": "text,label\n",
        "other.csv": "text,label\nfine,good\nso so,meh\n",
        "long.csv": f"text,label\n{reviews}{'dull ' * 200_000},bad\n",
        "nul.csv": f"text,label\n{reviews}a\0dull\0film,bad\n",
        "odd.jsonl": "".join(
            json.dumps({"text": text, "label": label}) + "\n"
            for text, label in [
                ("", "good"),
                ("dull " * 200_000, "bad"),
                ("a\0good\0film", "good"),
                ("bad", "bad"),
            ]
            * 4
        ),
    }
    inputs["reviews.csv"] = f"text,label\n{reviews}"
    running = "".join(f"{row} .\n" for row in rows * 4)
    inputs |= {
        "story.txt": running,
        "zero.txt": "",
        "blank.txt": "\n \t\n\n",
        "latin1.txt": f"{running}caf\xe9\n".encode("latin-1"),
        "nul.txt": f"{running}a\0b\n",
        "line.txt": "all of it on one line",
        "strange.txt": "Ωμέγα 漢字 \U0001f600 film\n\n  \nthe zebra\n",
        "long.txt": f"{running}{'x' * 5000} {'film ' * 50_000}\n",
        "utf16.txt": running.encode("utf-16"),
    }
    for name, content in inputs.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("hollow", "disk", "after"):
        (folder / name).mkdir()
    for command in (
        f"{TRAIN} --data reviews.csv --sparse vd --out run",
        "compact run -o model.karui --no-baseline",
        f"{TRAIN_LM} --data story.txt --out lm",
        "compact lm -o lm.karui",
    ):
        subprocess.run(
            [KARUI, *command.split()], cwd=folder, env=environment(), check=True, capture_output=True
        )
    data = (folder / "model.karui").read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    oversized = (
        data[:5] + b"\xff\xff\xff\xff\x0f" + data[6:-4]
    )  # a plain part of 2^32 - 1 bytes, checksum right
    (folder / "truncated-lm.karui").write_bytes((folder / "lm.karui").read_bytes()[:-40])
    (folder / "truncated.karui").write_bytes(data[: len(data) // 2])
    (folder / "flipped.karui").write_bytes(flipped)
    (folder / "oversized.karui").write_bytes(oversized + zlib.crc32(oversized).to_bytes(4, "little"))
    for name in ("bare", "cut"):
        shutil.copytree(folder / "run", folder / name)
    for name in ("bare-lm", "other-words"):
        shutil.copytree(folder / "lm", folder / name)
    for name in ("bare", "bare-lm"):
        shutil.rmtree(folder / name / "checkpoints")
    vocabulary = folder / "other-words" / "vocabulary.json"
    words = json.loads(vocabulary.read_text())
    vocabulary.write_text(json.dumps(words | {"words": words["words"][:-2], "counts": words["counts"][:-2]}))
    final = folder / "cut" / "checkpoints" / "final.safetensors"
    final.write_bytes(final.read_bytes()[:-100])


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def snapshot(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def attempt(case: Case, folder: Path) -> dict[str, Any]:
    """Run one case and return its record; `failures` is empty where all is as it must be."""
    before = snapshot(folder)
    command = f"karui {case.command}"
    script = f'karui() {{ "{KARUI}" "$@"; }}; '
    if case.disk:
        script += (
            f"mount -t tmpfs -o {DISKS[case.disk]}{{ {command}; code=$?; cp -r disk/. after; exit $code; }}"
        )
    else:
        script += command
    done = subprocess.run(
        [*(PRIVATE if case.disk else []), "sh", "-c", script],
        cwd=folder,
        env=environment(),
        input=case.stdin.encode(),
        capture_output=True,
        check=False,
        timeout=120,
    )
    after = snapshot(folder)
    written = sorted(name for name in after if name not in before)
    lost = [
        name
        for name, content in before.items()
        if after.get(name) != content and not (name in after and fnmatch(name, case.writes))
    ]
    if case.disk in ("full", "read-only"):  # what lay on that disk must come back from it unchanged
        kept = [name for name in before if name == "model.karui" or name.startswith("run/")]
        lost += [f"disk/{name}" for name in kept if after.get(f"after/{name}") != before[name]]
        copies = [f"after/{name}" for name in [*kept, "ballast"]]
        written = [name for name in written if name not in copies]
    stderr = done.stderr.decode().splitlines()
    record = {
        "case": case.name,
        "command": command,
        **({"disk": case.disk} if case.disk else {}),
        "exit_code": done.returncode,
        "stderr": stderr,
        "written": written,
        "lost_or_changed": lost,
    }
    record["failures"] = judge(case, record, done.stdout.decode(), folder)
    outcome = f"{'FAIL' if record['failures'] else 'ok  '} {case.name}: {' | '.join(stderr[-3:])}"
    print("\n     ".join([outcome, *record["failures"]]), flush=True)
    if not case.keep:
        for name in written:
            (folder / name).unlink()
        for name in ("new", "after"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "after").mkdir()
    return record


def judge(case: Case, record: dict[str, Any], stdout: str, folder: Path) -> list[str]:
    """Return what is wrong with the end of a case."""
    stderr, failures = record["stderr"], []
    if case.says:
        if record["exit_code"] != 2:
            failures.append("exit code is not 2")
        if len(stderr) != 1 or not stderr[0].startswith("karui: "):
            failures.append("stderr is not one line of karui")
        failures += [f"stderr does not name {part!r}" for part in case.says if part not in "".join(stderr)]
    elif record["exit_code"] != 0:
        failures.append("it did not work")
    if case.lines is not None and len(stdout.splitlines()) != case.lines:
        failures.append(f"{len(stdout.splitlines())} lines on stdout, not {case.lines}")
    if "Traceback" in "".join(stderr):
        failures.append("a traceback")
    failures += [f"wrote {name}" for name in record["written"] if not fnmatch(name, case.writes)]
    failures += [f"lost {name}" for name in record["lost_or_changed"]]
    if case.survives and not is_whole(folder / case.survives):
        failures.append(f"{case.survives} is not whole")
    return failures


def is_whole(checkpoint: Path) -> bool:
    """Tell whether a checkpoint can be read and its weights are finite."""
    if not checkpoint.is_file():
        return False
    with safe_open(checkpoint, framework="pt") as file:
        return all(bool(file.get_tensor(name).isfinite().all()) for name in file.keys())  # noqa: SIM118 - no dict


def can_mount() -> bool:
    """Tell whether a mount namespace of one's own is allowed here."""
    if shutil.which("unshare") is None:
        return False
    trial = [*PRIVATE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def main() -> None:
    """Prepare a folder, try every case in it, print and record."""
    parser = argparse.ArgumentParser(description="Give the command line every bad input.")
    parser.add_argument("--out", type=Path, default=None, help="record to write")
    parser.add_argument("--only", default="", help="part of the names of the cases to try")
    arguments = parser.parse_args()
    chains = [
        [*bad_data(), *odd_data(), *odd_language()],
        [*bad_files(), *bad_runs(), *bad_luck(), *bad_language()],
    ]
    cases = [case for chain in chains for case in chain if arguments.only in case.name]
    mounts = can_mount()
    if not mounts:
        print("skipped: the cases on full and read-only disks, for this machine allows no mount namespace")

    def try_all(chain: list[Case], folder: Path) -> list[dict[str, Any]]:
        return [attempt(case, folder) for case in chain if case in cases and (mounts or not case.disk)]

    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, "one"), Path(name, "two")]
        folders[0].mkdir()
        prepare(folders[0])
        shutil.copytree(folders[0], folders[1])
        with ThreadPoolExecutor() as pool:
            records = [record for chain in pool.map(try_all, chains, folders) for record in chain]
    passed = sum(not record["failures"] for record in records)
    print(f"{passed} of {len(records)} cases passed")
    if arguments.out is not None:
        path = write_record(
            arguments.out.parent,
            task="bad_input",
            data="made up",
            subset=False,
            recipe="classification-sparse",
            seed=0,
            metrics={"cases": len(records), "passed": passed, "skipped": len(cases) - len(records)},
            name=arguments.out.stem,
        )
        content = json.loads(path.read_text())
        atomic_write(path, json.dumps(content | {"cases": records}, indent=1, ensure_ascii=False) + "\n")
    sys.exit(0 if records and passed == len(records) else 1)


if __name__ == "__main__":
    main()
