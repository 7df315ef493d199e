"""The child process of agent.templates.process: holds one compiled template, and renders with it as often as it is asked.

Talks over standard input and output in frames: a length of four bytes, the highest first, then so many bytes of JSON. The first
frame is {"template", "bos", "eos", "cpu_seconds", "memory_bytes"}, answered by {}; every further one is {"jobs": [{"variables",
"now"}], "cpu_seconds", "max_output"}, answered by {"done": [[text, error]], "names": [of variables]}. {"broken": why} ends it.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import Any

from jinja2 import meta, nodes

from agent.templates.sandbox import Broken, Template, allow_processor_time, compiled, environment, limit, rendered

_now = datetime.now()


def _read(length: int) -> bytes:
    parts: list[bytes] = []
    while length:
        part = os.read(0, min(length, 1 << 20))
        if not part:
            os._exit(0)  # the parent is done with us, or gone
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _receive() -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(_read(int.from_bytes(_read(4), "big")))
    return frame


def _send(answer: dict[str, Any]) -> None:
    data = json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(1, data) :]


def _variables(tree: nodes.Template) -> list[str]:
    """The variables that a template reads; those of thinking also where it gives them a default under the same name."""
    read = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"}
    return sorted(meta.find_undeclared_variables(tree) | {name for name in read if "think" in name or "reason" in name})


def _work(template: Template, order: dict[str, Any], constants: dict[str, Any]) -> list[tuple[str, str | None]]:
    global _now
    done: list[tuple[str, str | None]] = []
    left = order["max_output"]
    for job in order["jobs"]:
        _now = datetime.fromisoformat(job["now"])
        done.append(rendered(template, {**constants, **job["variables"]}, left))
        left -= len(done[-1][0])
    return done


def main() -> None:
    """Serve until standard input ends."""
    try:
        first = _receive()
        allow_processor_time(first["cpu_seconds"])
        limit(first["memory_bytes"])
        sandbox = environment(lambda: _now)
        template = compiled(sandbox, first["template"])
        names = _variables(sandbox.parse(first["template"]))
        _send({})
        constants = {"bos_token": first["bos"], "eos_token": first["eos"], "documents": None}
        while True:
            order = _receive()
            allow_processor_time(order["cpu_seconds"])
            _send({"done": _work(template, order, constants), "names": names})
    except Broken as e:
        _send({"broken": str(e)})
    except MemoryError:
        _send({"broken": "takes too much memory"})
    except RecursionError:
        _send({"broken": "never stops calling itself"})


if __name__ == "__main__":
    main()
