"""`sprig deploy`, thin: arguments in, a call, the result for a person or a script."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import console
from agent.cli.completion import model_names
from agent.cli.options import MODEL_HERE, SETTINGS, Json, Verbose
from agent.files import human_size
from agent.text import display

if TYPE_CHECKING:
    from pipeline.deploy.deploy import Deployed
    from pipeline.deploy.device import Device
    from pipeline.deploy.service import Service

deploy_app = typer.Typer(**SETTINGS)


@deploy_app.command()
def deploy(
    model: Annotated[str, typer.Argument(metavar="MODEL", autocompletion=model_names, help=MODEL_HERE)],
    host: Annotated[
        str | None, typer.Argument(metavar="[USER@]HOST", help="What `ssh` takes; port and key are for its own configuration.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Instead of a host: a folder of models, or a SPRIG_HOME, on a mounted card."),
    ] = None,
    install: Annotated[
        bool,
        typer.Option("--install", help="Bring Sprig too, or bring it up to date: from wheels, so no network is needed there."),
    ] = False,
    wheelhouse: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Wheels for --install; by default those of `make wheels`, dist/wheelhouse-MACHINE."),
    ] = None,
    service: Annotated[
        bool,
        typer.Option("--service", help="Serve it from now on, for browsers through an SSH tunnel: a systemd service, sandboxed."),
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Bring a model to a device: sent, checked and tried there, and only then given its name."""
    if (host is None) == (to is None):
        raise typer.BadParameter("say where it goes: user@host, or --to DIR")
    if host is None and (install or wheelhouse or service):
        raise typer.BadParameter("--install and --service are for a device that is reached over SSH")
    with console.command(json=json, verbose=verbose) as out:
        from agent.cli.progress import Bars
        from agent.models.find import find_model

        file = find_model(model)
        with Bars() as bars:
            if host is not None:
                from pipeline.deploy.deploy import deploy as over_ssh

                def prepare(device: Device) -> str:
                    from pipeline.deploy.install import install as bring_sprig

                    return bring_sprig(device, wheelhouse, on_progress=bars.show, say=out.say)

                result = over_ssh(
                    file,
                    host,
                    prepare=prepare if install or wheelhouse else None,
                    service=service,
                    on_progress=bars.show,
                    say=out.say,
                )
            elif to is not None:
                from pipeline.deploy.card import deploy_to_folder

                result = deploy_to_folder(file, to, on_progress=bars.show, say=out.say)
        out.result(result.to_dict(), _summary(result))


def _summary(result: Deployed) -> str:
    sent = "all of it sent" if result.sent == result.size else f"{human_size(result.sent)} of it sent, the rest was there"
    where = f"{display(result.host)}:" if result.host else ""
    rows = [
        ("model", where + display(result.path)),
        ("size", f"{human_size(result.size)}, {sent if result.sent else 'there already'}; its SHA-256 was checked there"),
        ("old one", "replaced" if result.replaced else ""),
    ]
    if result.smoke_test is not None:
        t = result.smoke_test
        there = shlex.join([result.sprig, "chat", "-m", PurePosixPath(result.path).stem])
        rows += [
            ("answer", display(" ".join(t.answer.split()))),
            ("speed", f"reads {t.reads:.1f}, writes {t.writes:.1f} tokens/s; {human_size(t.memory)} of memory"),
            ("talk to it", display(shlex.join(["ssh", "-t", result.host, there]))),
        ]
    else:
        rows += [("not tried", result.untried)]
    lines = [f"{label:<12}{text}" for label, text in rows if text]
    if result.service is not None:
        lines += _served(result.host, result.service)
    return "\n".join(lines)


def _served(host: str, service: Service) -> list[str]:
    from pipeline.deploy.service import PORT

    if service.running:
        return [
            "service     sprig.service runs, on the device's own loopback only",
            f"            ssh -L {PORT}:127.0.0.1:{PORT} {display(host)}",
            "            then open the address that this shows there: sudo journalctl -u sprig -o cat -n 20",
        ]
    return [
        "service     does not run yet: that takes root's rights there. On the device:",
        *(f"            {display(command)}" for command in service.commands),
        "",
        display(service.unit, lines=True),
    ]
