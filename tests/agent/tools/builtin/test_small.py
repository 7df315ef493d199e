"""The small built-in tools: calculator, clock, timers, notes, device, SQL; and how the set is made."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tools.builtin.calculator import calculate
from agent.tools.builtin.catalogue import BUILTIN_NAMES, builtin
from agent.tools.builtin.clock import Timers
from agent.tools.builtin.notes import Notes
from agent.tools.define import Tool
from agent.tools.result import ToolDefinitionError, ToolError
from tests.fixtures.generated import runs


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, Tool]:
    (tmp_path / "root").mkdir()
    return {t.name: t for t in builtin(root=tmp_path / "root", home=tmp_path / "home")}


def test_the_whole_set_is_lean(tools: dict[str, Tool]) -> None:
    assert tuple(tools) == BUILTIN_NAMES
    for made in tools.values():
        assert len(made.spec.description) < 90
        assert 0 <= len(made.spec.parameters["properties"]) <= 4
        assert made.origin == "builtin"
    assert len(json.dumps([t.spec.as_openai() for t in tools.values()])) < 4200


def test_some_of_them_by_name(tmp_path: Path) -> None:
    assert [t.name for t in builtin(["clock", "recall", "clock"], root=tmp_path)] == ["clock", "recall"]
    with pytest.raises(ToolDefinitionError, match="no built-in tool is called 'cloc': there are read_file"):
        builtin(["cloc"], root=tmp_path)


def test_nothing_heavy_is_loaded_for_them() -> None:
    names = "'clock', 'calculate', 'read_file'"
    code = f"import sys; from agent.tools.builtin.catalogue import builtin; builtin([{names}]); print(*sys.modules)"
    alone = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # coverage loads much
    done = subprocess.run([sys.executable, "-c", code], env=alone, capture_output=True, text=True, check=True, timeout=30)
    loaded = set(done.stdout.split())
    assert not loaded & {
        "asyncio",
        "http.client",
        "ssl",
        "sqlite3",
        "numpy",
        "jinja2",
        "llama_cpp",
        "multiprocessing",
        "html.parser",
    }


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("2+3*4", "14"), ("(2+3)*4", "20"), ("0.1+0.2", "0.3"), ("1/3", "0.333333333333"), ("7/4", "1.75"), ("-7/4", "-1.75"),
        ("2^10", "1024"),
        ("2**0.5", "1.41421356237"), ("10 % 3", "1"), ("5 % -3", "-1"), ("15%*80", "12"), ("200*7%", "14"), ("7//2", "3"),
        ("sqrt(144)", "12"),
        ("sqrt(2)", "1.41421356237"), ("factorial(20)", "2432902008176640000"), ("round(2.5)", "3"), ("round(-2.5)", "-3"),
        ("round(3.14159, 2)", "3.14"),
        ("sin(pi/2)", "1"), ("log(100, 10)", "2"), ("ln(e)", "1"), ("max(1, 2.5)", "2.5"), ("mean(1,2,3,4)", "2.5"),
        ("comb(5,2)", "10"), ("gcd(12,18)", "6"),
        ("3 × 4 ÷ 2", "6"), ("1e3", "1000"), ("2**-1", "0.5"), ("0**0", "1"), ("0**5", "0"), ("1**-7", "1"), ("(-1)**2", "1"),
        ("(-2)**3", "-8"), ("(-1)**99999999", "-1"), ("1_000 + 1", "1001"), ("100 =", "100"), ("-(-3)", "3"),
        ("0.1**3", "0.001"), ("floor(-2.5)", "-3"), ("1/8", "0.125"), ("hypot(3,4)", "5"),
        ("2**100", "1267650600228229401496703205376"), ("0*1e50", "0"),
        ("1e300*10", "1e+301"), ("12345678901234567890 + 1", "12345678901234567891"),
    ],
)  # fmt: skip
def test_arithmetic(expression: str, result: str) -> None:
    assert calculate(expression) == result


@pytest.mark.parametrize(
    "expression",
    [
        "", "2+", "(1", "1/0", "0**-1", "x", "__import__('os').system('x')", "().__class__", "'a'*9", "[1]*9", "lambda: 1",
        "1 if 1 else 2", "1 < 2", "True",
        "9**9**9", "10**100000", "2**13001", "factorial(100000)", "factorial(-1)", "factorial(2.5)", "sqrt(-1)", "(-8)**0.5",
        "log(0)", "1e308*10*10", "1e999",
        "exp(1000)", "comb(10**9, 5*10**8)", "perm(12000, 1000)", "round(1, 10**9)", "nope(1)", "sqrt()", "sqrt(1, 2)",
        "1 << 99999999", "1 | 2", "~1", "1j",
        "print(1)", "sum", "f'{1}'", "1;2", "a:=1", "*1", "1,2", "max(x=1)", "(" * 500 + ")" * 500, "-" * 900 + "1", "1" * 1001,
        "0x" + "f" * 900, "\0",
        "1e-9999999", "atan2(1e400, 1)", "sqrt.__class__(1)", "1 if", "9" * 999 + "**9999",
    ],
)  # fmt: skip
def test_what_is_no_arithmetic_or_too_much_of_it_is_refused_at_once(expression: str) -> None:
    began = time.monotonic()
    refusal = ""
    try:
        result = calculate(expression)
    except ToolError as e:
        refusal = str(e)
    else:
        assert re.fullmatch(r"-?\d+", result)  # 900 minus signs are arithmetic, a long number is one
        assert expression.startswith(("-", "0x", "1e-"))
    assert time.monotonic() - began < 0.5
    assert "\n" not in refusal


@settings(max_examples=runs(150), derandomize=True, deadline=2000, database=None)
@given(st.text(st.sampled_from("0123456789.+-*/%^() esqrtpi,"), max_size=30))
def test_no_expression_raises_anything_else(expression: str) -> None:
    try:
        assert len(calculate(expression)) < 5000
    except ToolError:
        return


def test_the_clock_says_date_time_weekday_and_zone(tools: dict[str, Tool]) -> None:
    text = tools["clock"].invoke({}).text
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d, \w+day, .+ \(UTC[+-]\d{4}\)", text)
    assert text.startswith(time.strftime("%Y-%m-%d %H:"))


def test_timers_last_and_are_told_once(tmp_path: Path) -> None:
    now = [1_000_000.0]
    timers = Timers(tmp_path / "deep/timers.json", lambda: now[0])
    assert timers.list_timers() == "no timers"
    assert timers.set_timer(3725, "cake\nin the oven").startswith("timer 'cake in the oven' set for ")
    timers.set_timer(60, "tea")
    again = Timers(tmp_path / "deep/timers.json", lambda: now[0])
    lines = again.list_timers().splitlines()
    assert lines[0].startswith("running 'tea': 1 min left, until ")
    assert lines[1].startswith("running 'cake in the oven': 1 h 2 min 5 s left")
    now[0] += 61
    over, running = again.list_timers().splitlines()
    assert over.startswith("over 'tea': ")
    assert over.endswith(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1_000_060)))
    assert again.list_timers().splitlines() == [running]
    now[0] += 4000
    assert again.list_timers().startswith("over 'cake in the oven': ")
    assert again.list_timers() == "no timers"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e12])
def test_timers_of_no_or_endless_time_are_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ToolError):
        Timers(tmp_path / "t.json").set_timer(seconds)


def test_a_broken_timer_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('[{"label": 1')
    timers = Timers(tmp_path / "t.json")
    assert timers.list_timers() == "no timers"
    assert (tmp_path / "t.broken").exists()
    timers.set_timer(5)
    assert "running" in timers.list_timers()


def test_timers_from_many_threads_are_all_kept(tmp_path: Path) -> None:
    timers = Timers(tmp_path / "t.json")
    threads = [threading.Thread(target=timers.set_timer, args=(100 + n, str(n))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert timers.list_timers().count("running") == 20


def test_notes_last_and_are_found_by_their_words(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "deep/notes.jsonl", lambda: 1_700_000_000.0)
    assert notes.recall("anything") == "there are no notes"
    for text in ("The cat is called Mitzi.", "Bed 2 has tomatoes", "Tomaten brauchen Wärme", "milk, eggs"):
        assert notes.remember(text) == "noted"
    again = Notes(tmp_path / "deep/notes.jsonl")
    assert again.recall("cats").endswith("The cat is called Mitzi.")
    assert again.recall("TOMATOES in bed 2").splitlines()[0].endswith("Bed 2 has tomatoes")
    assert again.recall("warme").endswith("Tomaten brauchen Wärme")
    assert again.recall("giraffe") == "no such note"
    assert again.recall().splitlines()[0].endswith(": milk, eggs")


def test_a_note_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "n.jsonl"
    notes = Notes(file)
    notes.remember("first")
    with file.open("ab") as f:
        f.write(b'{"at": 5, "text": "torn')
    notes.remember("second")
    with file.open("ab") as f:
        f.write(b'\xff\xfe\n[]\n{"at": "x", "text": 1}\n{"at": 1e999, "text": "late"}\n')
    found = notes.recall()
    assert "first" in found
    assert "second" in found
    assert "torn" not in found


@pytest.mark.parametrize("text", ["", "  \n", "\x1b[0m\x00", "x" * 2001])
def test_notes_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(ToolError):
        Notes(tmp_path / "n.jsonl").remember(text)
    assert not (tmp_path / "n.jsonl").exists()


def write_notes(file: str, name: str) -> None:
    for n in range(20):
        Notes(Path(file)).remember(f"{name} {n}")


@pytest.mark.slow
def test_two_processes_may_write_notes(tmp_path: Path) -> None:
    file = tmp_path / "n.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_notes, args=(str(file), name)) for name in ("left", "right")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    texts = [json.loads(line)["text"] for line in file.read_text().splitlines()]
    assert sorted(texts) == sorted(f"{name} {n}" for name in ("left", "right") for n in range(20))


def test_the_devices_state_is_told(tools: dict[str, Tool]) -> None:
    lines = dict(line.split(": ", 1) for line in tools["device_status"].invoke({}).text.splitlines())
    assert set(lines) == {"cores", "memory free", "load", "temperature", "throttling", "battery", "disk free"}
    assert int(lines["cores"]) >= 1


@pytest.fixture
def garden(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir(exist_ok=True)
    place = tmp_path / "root/garden.db"
    with sqlite3.connect(place) as db:
        db.execute("CREATE TABLE bed(id INTEGER PRIMARY KEY, plant TEXT, area REAL, photo BLOB)")
        db.executemany(
            "INSERT INTO bed(plant, area, photo) VALUES (?, ?, ?)",
            [("rose", 1.5, b"\0\1"), (None, 2.0, None), ("a\nb\x1b[2J", 0.5, None)],
        )
        db.execute(
            "CREATE TABLE many AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n"
        )
    db.close()
    return place


def sql(tools: dict[str, Tool], query: str, path: str = "garden.db") -> Any:
    return tools["query_sqlite"].invoke({"path": path, "sql": query})


@pytest.mark.slow
def test_reading_a_database(tools: dict[str, Tool], garden: Path) -> None:
    result = sql(tools, "SELECT id, plant, area, photo FROM bed ORDER BY id")
    assert result.ok
    assert result.text == "id | plant | area | photo\n1 | rose | 1.5 | [2 bytes]\n2 | NULL | 2.0 | NULL\n3 | a b | 0.5 | NULL"
    assert result.data["rows"][0] == [1, "rose", 1.5, "[2 bytes]"]
    assert "CREATE TABLE bed" in sql(tools, "SELECT sql FROM sqlite_schema").text
    assert sql(tools, "PRAGMA table_info(bed)").ok
    assert sql(tools, "SELECT * FROM bed WHERE id > 9").text == "id | plant | area | photo\n[no rows]"
    many = sql(tools, "SELECT i FROM many")
    assert many.text.endswith("[more than 200 rows: use LIMIT, or count(*)]")
    assert "SQL error: no such table: nope" in sql(tools, "SELECT * FROM nope").text
    assert "characters]" in sql(tools, "SELECT hex(zeroblob(5000))").text


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM bed", "INSERT INTO bed(plant) VALUES ('x')", "UPDATE bed SET plant = 'x'", "DROP TABLE bed",
        "CREATE TABLE x(a)", "CREATE TEMP TABLE x(a)",
        "ATTACH '/etc/passwd' AS p", "ATTACH 'new.db' AS n", "DETACH main", "VACUUM", "VACUUM INTO 'copy.db'",
        "PRAGMA journal_mode = WAL", "PRAGMA user_version = 5",
        "PRAGMA writable_schema = 1", "PRAGMA query_only = 0", "SELECT load_extension('x')", "SELECT writefile('x', 'y')",
        "SELECT readfile('/etc/passwd')", "BEGIN",
        "SELECT 1; DELETE FROM bed", "REINDEX", "ANALYZE", "SELECT fts3_tokenizer('simple')", "EXPLAIN DELETE FROM bed",
        "WITH x AS (SELECT 1) DELETE FROM bed",
        "PRAGMA temp_store_directory = '/tmp'", "CREATE VIRTUAL TABLE v USING fts5(a)", "SAVEPOINT a", "", "garbage",
    ],
)  # fmt: skip
def test_nothing_but_reading_gets_through(query: str, garden: Path) -> None:
    from agent.tools.builtin.sql_child import SqlError
    from agent.tools.builtin.sql_child import query as ask

    before = garden.read_bytes()
    try:
        answer = ask({"root": str(garden.parent), "path": "garden.db", "sql": query, "seconds": 5})
    except SqlError:
        pass
    else:
        assert answer["rows"] == [], "SQLite lets some statements through that do nothing here"
    assert garden.read_bytes() == before
    assert [p.name for p in garden.parent.iterdir()] == ["garden.db"]


@pytest.mark.slow
def test_queries_that_never_end_or_fill_the_memory(tools: dict[str, Tool], garden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.tools.builtin.lookup._SQL_SECONDS", 0.5)
    began = time.monotonic()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    assert sql(tools, endless).text == "the query took more than 0.5 s: limit it"
    assert time.monotonic() - began < 4
    assert not sql(tools, "SELECT zeroblob(2000000000)").ok
    assert sql(tools, "SELECT replace(hex(zeroblob(4000)), '00', hex(zeroblob(4000)))").ok is False


@pytest.mark.slow
def test_files_that_are_no_database(tools: dict[str, Tool], garden: Path) -> None:
    (garden.parent / "text").write_text("hello")
    (garden.parent / "torn.db").write_bytes(garden.read_bytes()[:600])
    (garden.parent / "link.db").symlink_to(garden)
    assert sql(tools, "SELECT 1", "text").text == "text is no SQLite database"
    assert not sql(tools, "SELECT * FROM bed", "torn.db").ok
    assert "symbolic link" in sql(tools, "SELECT 1", "link.db").text
    assert "does not exist" in sql(tools, "SELECT 1", "nowhere.db").text


@pytest.mark.slow
def test_a_database_in_wal_mode_is_read_at_rest_and_in_use(tools: dict[str, Tool], garden: Path) -> None:
    db = sqlite3.connect(garden)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("UPDATE bed SET plant = 'lily' WHERE id = 1")
    db.commit()
    assert "lily" in sql(tools, "SELECT plant FROM bed").text
    db.close()
    assert sorted(p.name for p in garden.parent.iterdir()) == ["garden.db"]
    assert "lily" in sql(tools, "SELECT plant FROM bed").text
    assert sorted(p.name for p in garden.parent.iterdir()) == ["garden.db"]
