"""`sprig fit`: which form of a model fits a device, how fast it will be, and what to take."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import console
from agent.cli.completion import device_names, model_names
from agent.cli.options import MODEL_ANYWHERE, SETTINGS, Json, Memory, Verbose
from agent.errors import SprigError
from pipeline.cli.options import Offline, Revision, Token

if TYPE_CHECKING:
    from agent.fit.fit import Fit
    from agent.fit.profile import DeviceProfile

fit_app = typer.Typer(**SETTINGS)


@fit_app.command()
def fit(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", autocompletion=model_names, help=MODEL_ANYWHERE)] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "-d", "--device", metavar="NAME", autocompletion=device_names, help="As pi5 or pi5-4gb; by default this machine."
        ),
    ] = None,
    context: Annotated[int | None, typer.Option("-c", "--context", min=256, metavar="N", help="Tokens of context.")] = None,
    memory: Memory = None,
    devices: Annotated[bool, typer.Option("--devices", help="List the devices that are known.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine anew; half a minute.")] = False,
    save_profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep this machine as a device for --device, here or elsewhere.")
    ] = None,
    revision: Revision = None,
    token: Token = None,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say which form of a model fits a device: size, memory, speed, and what to take. No weight is read."""
    with console.command(json=json, verbose=verbose) as out:
        if devices:
            _list(out)
            return
        if save_profile is not None:
            from agent.fit.machine import save_profile as save

            path = save(_this_machine(out, measure), save_profile)
            said = f"{path}\ncopy it to SPRIG_HOME/devices of another machine; there --device {save_profile} means this one"
            out.result({"profile": str(path)}, said)
            return
        if model is None:
            raise SprigError("name a model: sprig fit MODEL [--device NAME]; --devices lists the devices")
        from agent.cli.fit_text import report
        from agent.fit.fit import device_budget, to_dict
        from agent.fit.fit import fit as estimate
        from agent.fit.profile import find_profile
        from agent.models.memory import MemoryBudget
        from pipeline.fit import model_forms

        target = find_profile(device) if device else None
        forms = model_forms(model, revision=revision, token=token, offline=offline)
        where = target or _this_machine(out, measure)
        found = estimate(forms, where, device_budget(target, memory) if target else MemoryBudget.of(memory), context)
        verify = _verify(model, found, device)
        out.result({**to_dict(found, model), "verify": verify}, report(found, " && ".join(verify)))


def _this_machine(out: console.Console, anew: bool) -> DeviceProfile:
    """Its profile, measured when it never was. What was measured while other programs were busy is not kept, unless asked for."""
    from agent.fit.machine import recall_machine, remember_machine

    known = None if anew else recall_machine()
    if known:
        return known
    from agent.device.machine import load
    from agent.device.processor import cores
    from agent.fit.calibrate import measure_machine

    now = load()
    busy = now is not None and now.one > 0.5 * cores()
    out.say("measuring this machine, which takes half a minute and is done once ...")
    if now and busy:
        kept = "" if anew else "; what is measured now is not kept"
        out.say(f"other programs keep it busy (load {now.one:.1f} on {cores()} cores) and make it seem slower than it is{kept}")
    found = measure_machine(out.say)
    if anew or not busy:
        remember_machine(found)
    return found


def _list(out: console.Console) -> None:
    from agent.cli.fit_text import devices_table
    from agent.fit.profile import ProfileError, list_profiles, sized, user_profiles

    found = list(list_profiles())
    data: list[dict[str, Any]] = []
    for one in found:
        if isinstance(one, ProfileError):
            data.append({"broken": str(one)})
            continue
        processor = {"machine": one.processor.machine, "features": sorted(one.processor.features)}
        data.append({**asdict(one), "processor": processor, "names": [sized(one.name, size) for size in one.sizes]})
    tail = f"\nA size goes behind a name: pi5-4gb. Your own devices lie in {user_profiles()}."
    out.result({"devices": data}, devices_table(found) + "\n" + tail)


def _verify(model: str, found: Fit, device: str | None) -> list[str]:
    """The commands, on the device, that measure what is only predicted here."""
    from shlex import quote

    chosen = found.chosen
    if chosen is None:
        return []
    if chosen.file.identity:
        return [f"sprig bench {quote(model)}"]
    name = model.partition("@")[0].rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")
    return [f"sprig quantize {quote(model)} -q {chosen.recipe}", f"sprig bench {quote(f'{name}-{chosen.recipe}')}"]
