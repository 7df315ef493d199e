"""Every example runs as its reader would run it: as a script, with the real SmolLM2, to a clean end.

What so small a model says is not judged here. That calls are made, fit their schema and do what they should, is.
"""

from __future__ import annotations

import json
import os
import queue
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.mqtt_broker import mqtt_broker
from tests.fixtures.paths import ROOT
from tests.fixtures.smollm2 import as_q8_0

pytestmark = [pytest.mark.real, pytest.mark.timeout(320)]
EXAMPLES = ROOT / "examples"
SECONDS = 300  # a guard against hanging, not a measure: each takes a few seconds on two free cores


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def on_one_core() -> None:
    """Engines that each take every core wait for one another's threads, and tests run side by side."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        os.sched_setaffinity(0, {cores[worker % len(cores)]})


def run(name: str, *arguments: str, home: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SPRIG_HOME": str(home)}
    env.pop("SPRIG_MODEL", None)
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), str(as_q8_0()), *arguments]
    return subprocess.run(
        command, env=env, cwd=home, input=stdin, capture_output=True, text=True, timeout=SECONDS, preexec_fn=on_one_core
    )  # fmt: skip


def ended_well(name: str, *arguments: str, home: Path, stdin: str = "") -> str:
    done = run(name, *arguments, home=home, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_garden_is_watered(home: Path) -> None:
    said = ended_well("garden", home=home)
    calls = re.findall(r"^water\(\{'bed': (\d+)(?:, 'seconds': \d+)?\}\): (.*)$", said, re.MULTILINE)
    assert [bed for bed, _ in calls[:2]] == ["2", "3"]
    assert calls[0][1].startswith("bed 2 got water for")


def test_the_readmes_script_runs(home: Path, tmp_path: Path) -> None:
    block = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    script = tmp_path / "script.py"
    script.write_text(re.sub(r'"[^"]*\.gguf"', "__import__('sys').argv[1]", block[1], count=1), encoding="utf-8")
    said = ended_well(str(script.with_suffix("")), home=home)
    assert re.match(r"bed 2 got water for 60 seconds - \S", said)
    assert "Done(result=" in said


def test_files_are_read_unasked_and_written_only_after_a_yes(home: Path) -> None:
    said = ended_well("files", home=home, stdin="n\n" * 4)
    assert re.search(r"^list_files \{", said, re.MULTILINE)
    assert re.search(r"^write_file: .*\n(.*\n)*?.*Allow it\? \[y/N\] ", said, re.MULTILINE)
    assert "write_file did not run: the user said no" in said
    assert said.endswith("in the folder now: beds.txt, shopping.txt\n")


def test_files_where_nobody_answers(home: Path) -> None:
    said = ended_well("files", home=home)
    assert "write_file did not run: the user said no" in said
    assert said.endswith("in the folder now: beds.txt, shopping.txt\n")


def test_the_sensor_log_is_queried(home: Path) -> None:
    said = ended_well("sensor_log", home=home)
    assert said.startswith("? What was the highest temperature in the greenhouse?\nquery: SELECT ")
    assert re.search(r"^query: SELECT (max|min|avg)\(celsius\) .*\n(max|min|avg)\(celsius\)\n-?\d+\.\d+$", said, re.MULTILINE)
    assert "\nanswer: " in said
    assert said.endswith("(the log says 32.0)\n")


def test_a_lamp_is_switched_over_a_real_broker(home: Path) -> None:
    import paho.mqtt.client as mqtt

    heard: queue.Queue[bytes] = queue.Queue()
    ready: queue.Queue[None] = queue.Queue()
    lamp = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)

    def on_message(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        heard.put(message.payload)
        client.publish("sprig/lamp/state", message.payload)

    lamp.on_message = on_message
    lamp.on_subscribe = lambda *_: ready.put(None)
    with mqtt_broker() as port:
        lamp.connect("127.0.0.1", port)
        lamp.loop_start()
        lamp.subscribe("sprig/lamp/set")
        ready.get(timeout=30)
        said = ended_well("mqtt_device", f"127.0.0.1:{port}", home=home)
        lamp.disconnect()
        lamp.loop_stop()
    order = json.loads(heard.get(timeout=5))
    assert isinstance(order["on"], bool)
    assert 0 <= order["brightness"] <= 100
    assert said.startswith("set_lamp({'on': ")
    assert f"the lamp says {json.dumps(order)}\n" in said


def test_without_a_broker_one_line_says_so(home: Path) -> None:
    done = run("mqtt_device", "127.0.0.1:1", home=home)
    assert done.returncode == 1
    assert done.stderr.startswith("no broker answers at 127.0.0.1:1 ")
    assert done.stderr.count("\n") == 1


def test_a_ticket_is_extracted(home: Path) -> None:
    said = ended_well("extract", home=home)
    found = dict(re.findall(r"^(\w+) +(.+)$", said, re.MULTILINE))
    assert found["name"] == "'Ada Byron'"
    assert found["flat"] == "12"
    assert found["urgency"] in ("'today'", "'this week'", "'whenever'")


def test_two_agents_share_an_engine(home: Path) -> None:
    said = ended_well("two_agents", home=home)
    assert re.match(r"writer: \S", said)
    assert re.search(r"^critic: \*{1,5} \S", said, re.MULTILINE)
    assert said.count("writer: ") == 2


def test_agents_live_in_an_event_loop(home: Path) -> None:
    said = ended_well("event_loop", home=home)
    assert re.search(r"^water: (tomatoes|beans) got water for \d+ seconds$", said, re.MULTILINE)
    assert max(map(int, re.findall(r"for (\d+) seconds", said))) <= 60
    assert re.search(r"^next_reading: (tomatoes|beans): [36][0-4] % moisture$", said, re.MULTILINE)
    assert re.search(r"^calls: [12] and [12]\nthat took too long, and was ended$", said, re.MULTILINE)


def test_a_run_is_watched(home: Path) -> None:
    lines = ended_well("watch", home=home).splitlines()
    kinds = [line.split()[0] for line in lines]
    places = [kinds.index(kind) for kind in ("loading", "prefill", "forming", "call", "result", "text")]
    assert places == sorted(places)
    prefill = [int(line.split()[1]) for line in lines if line.startswith("prefill")]
    assert prefill[0] < prefill[1]
    assert re.fullmatch(r"(done|length|loop): \d+ tokens, \d+ of them forced, \d+ t/s in, \d+ t/s out", lines[-1])


def test_without_a_model_the_script_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPRIG_MODEL", raising=False)
    monkeypatch.syspath_prepend(EXAMPLES)
    for script in sorted(EXAMPLES.glob("*.py")):
        if script.stem in ("demo", "model"):
            continue
        monkeypatch.setattr(sys, "argv", [str(script)])
        with pytest.raises(SystemExit, match=r"^usage: python "):
            runpy.run_path(str(script), run_name="__main__")
