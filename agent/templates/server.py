"""The child process of agent.templates.process: holds one compiled template, and renders with it as often as it is asked.

The template gets jinja2's sandbox, set up as transformers does, and an operating system that gives nothing: the limits come from
the kernel, so that they also hold where the sandbox would not.

Messages (agent.children.wire) come by standard input and go by standard output. The first is {"template", "bos", "eos",
"cpu_seconds", "memory_bytes"}, answered by {}; every further one is {"jobs": [{"variables", "now"}], "cpu_seconds",
"max_output"}, answered by {"done": [[text, error]], "names": [of variables]}. {"broken": why} ends it.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import resource
import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
import jinja2.debug  # on the first error jinja2 imports it, and by then no file can be opened
from jinja2 import Template, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from agent.children import sandbox
from agent.children.orphan import end_with_parent
from agent.children.rules import FREE, Rules
from agent.children.wire import Wire
from agent.templates.limits import SEND_LESS
from agent.templates.shadow import tojson

# Codecs that jinja2 and shadows need: Python loads them at first use, and by then no file can be opened.
for _codec in ("ascii", "unicode-escape", "utf-8", "utf-16-le"):
    codecs.lookup(_codec)


class Broken(Exception):
    """The template must not be used; the message says why and follows the words "the chat template"."""


class _Generation(Extension):
    """``{% generation %}`` marks what the model itself wrote; for rendering, its body is all there is to it."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """A namespace whose attributes cannot reach into Python."""

    def __init__(*args: Any, **attributes: Any) -> None:
        # As in jinja2, self stays positional, so that a template may call an attribute "self".
        for name in dict(*args[1:], **attributes):
            _refuse_underscore(name)
        Namespace.__init__(*args, **attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace attribute may not be called {name!r}")


def environment(now: Callable[[], datetime] = datetime.now) -> ImmutableSandboxedEnvironment:
    """The sandbox. ``now`` is what ``strftime_now`` tells."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension])

    def raise_exception(message: object) -> None:
        raise jinja2.TemplateError(str(message))

    def strftime_now(form: str) -> str:
        return now().strftime(form)

    made.filters["tojson"] = tojson
    made.globals.update(raise_exception=raise_exception, strftime_now=strftime_now, namespace=_Namespace)
    return made


def compiled(jinja: ImmutableSandboxedEnvironment, source: str) -> Template:
    """The template, ready to render. Raises Broken when it does not parse."""
    try:
        return jinja.from_string(source)
    except jinja2.TemplateSyntaxError as e:
        raise Broken(f"does not parse (line {e.lineno}: {e.message})") from None
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as e:
        raise Broken(f"does not parse ({type(e).__name__}: {e})") from None


def rendered(template: Template, variables: dict[str, Any], max_output: int, written: int = 0) -> tuple[str, str | None]:
    """What it renders, and why it does not. Raises Broken when it must not be used again.

    It may write ``max_output`` characters, less those that it has ``written`` before.
    """
    pieces: list[str] = []
    length = written
    try:
        for piece in template.generate(**variables):
            pieces.append(piece)
            length += len(piece)
            if length > max_output:
                raise Broken(f"writes more than {max_output} characters; if the conversation is so long, {SEND_LESS}")
        return "".join(pieces), None
    except SecurityError as e:
        raise Broken(f"tries to leave its sandbox ({e})") from None
    except MemoryError:
        raise Broken("takes too much memory") from None
    except RecursionError:
        raise Broken("never stops calling itself") from None
    except (Broken, KeyboardInterrupt):
        raise
    except Exception as e:  # a template's code may raise whatever Python can
        return "", f"{e}" if isinstance(e, jinja2.TemplateError) else f"{type(e).__name__}: {e}"


def limit(memory_bytes: int) -> None:
    """From here on this process opens no file or socket, writes no file, starts no process and dumps no core."""
    limits = (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
    )
    for what, value in limits:
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of the address space
            resource.setrlimit(what, (value, value))


def allow_processor_time(seconds: int) -> None:
    """Let this process live for so many more seconds of processor time. The kernel counts in whole seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


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
    jinja = environment(lambda: _now)
    template = compiled(jinja, first["template"])
    names = _variables(jinja.parse(first["template"]))
    wire.send({})
    constants = {"bos_token": first["bos"], "eos_token": first["eos"], "documents": None}
    while True:
        order = wire.receive()
        allow_processor_time(order["cpu_seconds"])
        wire.send({"done": _work(template, order, constants), "names": names})


def main() -> None:
    """Serve until standard input ends."""
    end_with_parent(signal.SIGCONT)
    wire = Wire(0, 1)
    # All modules are there: from here on it needs no file, socket, program or privilege, and no other process.
    sandbox.confine_itself(Rules(limits=FREE))
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
