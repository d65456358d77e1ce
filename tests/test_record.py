"""Run folders: nothing that was written is lost, and a file that can't be right is refused in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ulproof.benchmarks import record
from ulproof.benchmarks.record import FORMAT, RunError, RunFolder, key, problem, read, records

HEADER = {"started": "2030-01-01T00:00:00+00:00", "environment": {}, "plan": {}}
TIME: dict[str, Any] = {
    "kind": "time",
    "status": "ok",
    "operator": "softmax",
    "seconds": {"median": 1.0, "low": 0.9, "high": 1.2, "samples": 8},
}


def folder_of(path: Path, count: int = 3) -> Path:
    folder = RunFolder.create(path / "run", HEADER)
    for number in range(count):
        folder.append({**TIME, "seed": number})
    folder.close()
    return folder.path


def lines(path: Path) -> list[bytes]:
    return (path / "records.jsonl").read_bytes().splitlines(keepends=True)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = folder_of(tmp_path)
    run, found = read(path)
    assert run == {"format": FORMAT, **HEADER}
    assert [each["seed"] for each in found] == [0, 1, 2]
    assert list(records(path)) == found


SOUND = {
    **TIME,
    "reason": None,
    "threads": 2,
    "axes": {"rows": 1, "n": 64},
    "cache": "hot",
    "noise": 0,
    "something else": [1],
    "roof": {"seconds": 1e-6, "binds": "exps", "level": None},
    "ulp": {"max": None, "outputs": 3},
}
UNSOUND: tuple[dict[str, Any], ...] = (
    {"kind": "tim"},
    {"status": None},
    {"reason": 3},
    {"threads": 0},
    {"threads": 1.5},
    {"threads": True},
    {"axes": {"n": "64"}},
    {"axes": None},
    {"cache": "warm"},
    {"noise": "none"},
    {"seconds": {"median": 1.0, "low": 0.9, "high": 1.2}},
    {"seconds": {**TIME["seconds"], "median": 0}},
    {"seconds": {**TIME["seconds"], "samples": 0}},
    {"roof": {"seconds": 1e-6}},
    {"roof": {"seconds": 1e-6, "binds": "luck"}},
    {"ulp": {}},
    {"ulp": [1]},
)


def test_the_quick_check_and_the_schema_agree() -> None:
    judge = Draft202012Validator({**record.schema()["$defs"]["record"], "$defs": record.schema()["$defs"]})
    whole = {"$ref": "record"}
    assert record._sound(SOUND, whole) and judge.is_valid(SOUND)
    for change in UNSOUND:
        assert not judge.is_valid(SOUND | change), change
        assert not record._sound(SOUND | change, whole), change
        assert problem(SOUND | change)
    for name in ("kind", "status"):
        lacking = {key: value for key, value in SOUND.items() if key != name}
        assert not record._sound(lacking, whole) and not judge.is_valid(lacking)
    assert problem(SOUND | {"threads": 2.0}) is None, "where the quick check is stricter the schema decides"
    assert not record._sound(SOUND, {"maxProperties": 99}), "a word that it does not know is not for it"


def test_a_run_without_records_is_a_run(tmp_path: Path) -> None:
    path = folder_of(tmp_path, 0)
    assert read(path)[1] == []
    (path / "records.jsonl").unlink()
    assert read(path)[1] == []


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_the_record_that_was_being_written_is_left_out(tmp_path: Path, kept: int) -> None:
    path = folder_of(tmp_path)
    whole = lines(path)
    (path / "records.jsonl").write_bytes(b"".join(whole[:2]) + whole[2][:kept])
    assert [each["seed"] for each in read(path)[1]] == [0, 1]
    folder = RunFolder.resume(path)
    folder.append({**TIME, "seed": 7})
    folder.close()
    assert [each["seed"] for each in read(path)[1]] == [0, 1, 7]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"kind": "time", \n', "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"\n", "not JSON"),
        (b"[]\n", "is not of type 'object'"),
        (b'{"kind": "time"}\n', "'status' is a required property"),
        (b'{"kind": "time", "status": "fine"}\n', "status: 'fine' is not one of ['ok', 'inaccurate', 'wrong'"),
        (b'{"kind": "time", "status": "ok", "threads": 0}\n', "threads: 0"),
        (b'{"kind": "time", "status": "ok", "seconds": {"median": 1}}\n', "'low' is a required property"),
    ],
)
def test_any_other_broken_line_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    path = folder_of(tmp_path)
    whole = lines(path)
    (path / "records.jsonl").write_bytes(whole[0] + line + whole[2])
    with pytest.raises(RunError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path / 'records.jsonl'}, line 2: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "states no format"),
        ('{"date": "today"}', "states no format"),
        (json.dumps({"format": 99}), f"has format 99, this version of ulproof reads {FORMAT}"),
        (json.dumps({"format": FORMAT, "started": "now", "environment": {}}), "'plan' is a required property"),
    ],
)
def test_a_header_that_is_not_ours_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = folder_of(tmp_path)
    (path / "run.json").write_text(text)
    for opened in (read, RunFolder.resume):
        with pytest.raises(RunError, match="run.json") as caught:
            opened(path)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no run.json"):
        read(tmp_path)
    with pytest.raises(RunError, match="has no run.json"):
        read(tmp_path / "missing")


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    path = folder_of(tmp_path)
    with pytest.raises(RunError, match="holds a run already; continue it with --resume"):
        RunFolder.create(path, HEADER)
    assert len(read(path)[1]) == 3


def test_a_folder_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't be made: Not a directory; name another folder with --output"):
        RunFolder.create(tmp_path / "file" / "run", HEADER)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without space")
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    path = folder_of(tmp_path)
    (path / "records.jsonl").rename(tmp_path / "kept")
    (path / "records.jsonl").symlink_to("/dev/full")
    folder = RunFolder.create(tmp_path / "other", HEADER)
    folder.close()
    folder = RunFolder(path, {}, [])
    with pytest.raises(RunError, match="No space left on device; free some space"):
        folder.append(TIME)
    assert folder.records == []
    (path / "records.jsonl").unlink()
    (tmp_path / "kept").rename(path / "records.jsonl")
    assert len(read(path)[1]) == 3


@pytest.mark.parametrize("bad", [{"status": "ok"}, {**TIME, "cache": "warm"}, {**TIME, "axes": {"n": 1.5}}])
def test_a_record_against_the_schema_is_never_written(tmp_path: Path, bad: dict[str, Any]) -> None:
    folder = RunFolder.create(tmp_path / "run", HEADER)
    with pytest.raises(ValueError, match="invalid record"):
        folder.append(bad)
    with pytest.raises(ValueError, match="Out of range|not JSON compliant"):
        folder.append({**TIME, "noise": float("nan")})
    folder.close()
    assert read(folder.path)[1] == []


def test_updating_the_header_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", HEADER)
    folder.update(finished="2030-01-01T00:01:00+00:00")
    folder.close()
    assert read(folder.path)[0] == {"format": FORMAT, **HEADER, "finished": "2030-01-01T00:01:00+00:00"}
    assert sorted(each.name for each in folder.path.iterdir()) == ["records.jsonl", "run.json"]


def test_keys_tell_measurements_apart() -> None:
    same = {**TIME, "axes": {"rows": 1, "n": 2}, "cache": "hot"}
    assert key(same) == key({**same, "status": "wrong", "seconds": None, "axes": {"n": 2, "rows": 1}})
    for change in ({"axes": {"rows": 2, "n": 1}}, {"cache": "cold"}, {"isa": "avx2"}, {"threads": 2}, {"kind": "accuracy"}):
        assert key(same) != key({**same, **change})


def test_the_schema_allows_what_readers_may_meet_later() -> None:
    assert problem({**TIME, "something new": 1}) is None


WRITER = """
import sys
from ulproof.benchmarks.record import RunFolder
folder = RunFolder.create(sys.argv[1], {"started": "now", "environment": {}, "plan": {}})
number = 0
while True:
    folder.append({"kind": "time", "status": "ok", "seed": number, "reason": "x" * 5000})
    print(number, flush=True)
    number += 1
"""


def test_kill_9_loses_at_most_the_record_being_written(tmp_path: Path) -> None:
    for attempt, seen in enumerate((1, 17, 60)):
        path = tmp_path / str(attempt)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            for _ in range(seen):
                last = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            last = max([last, *map(int, writer.stdout.read().split())])
        found = [each["seed"] for each in read(path)[1]]
        assert found == list(range(len(found)))
        assert len(found) >= last + 1
