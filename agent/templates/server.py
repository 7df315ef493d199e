"""The child process of agent.templates.process: holds one compiled template, and renders with it as often as it is asked.

Messages (agent.children.wire) come by standard input and go by standard output. The first is {"template", "bos", "eos",
"cpu_seconds", "memory_bytes"}, answered by {}; every further one is {"jobs": [{"variables", "now"}], "cpu_seconds",
"max_output"}, answered by {"done": [[text, error]], "names": [of variables]}. {"broken": why} ends it.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from jinja2 import meta, nodes

from agent.children.wire import Wire
from agent.templates.sandbox import Broken, Template, allow_processor_time, compiled, environment, limit, rendered

_now = datetime.now()


def _variables(tree: nodes.Template) -> list[str]:
    """The variables that a template reads; those of thinking also where it gives them a default under the same name."""
    read = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"}
    return sorted(meta.find_undeclared_variables(tree) | {name for name in read if "think" in name or "reason" in name})


def _work(template: Template, order: dict[str, Any], constants: dict[str, Any]) -> list[tuple[str, str | None]]:
    global _now
    done: list[tuple[str, str | None]] = []
    written = 0
    for job in order["jobs"]:
        _now = datetime.fromisoformat(job["now"])
        done.append(rendered(template, {**constants, **job["variables"]}, order["max_output"], written))
        written += len(done[-1][0])
    return done


def _serve(wire: Wire) -> None:
    first = wire.receive()
    # Counted from here: on a slow board the imports above may have taken a second themselves.
    allow_processor_time(first["cpu_seconds"])
    limit(first["memory_bytes"])
    sandbox = environment(lambda: _now)
    template = compiled(sandbox, first["template"])
    names = _variables(sandbox.parse(first["template"]))
    wire.send({})
    constants = {"bos_token": first["bos"], "eos_token": first["eos"], "documents": None}
    while True:
        order = wire.receive()
        allow_processor_time(order["cpu_seconds"])
        wire.send({"done": _work(template, order, constants), "names": names})


def main() -> None:
    """Serve until standard input ends."""
    wire = Wire(0, 1)
    try:
        _serve(wire)
    except EOFError:
        os._exit(0)  # the parent is done with us, or gone
    except Broken as e:
        wire.send({"broken": str(e)})
    except MemoryError:
        wire.send({"broken": "takes too much memory"})
    except RecursionError:
        wire.send({"broken": "never stops calling itself"})


if __name__ == "__main__":
    main()
