"""`sprig embed`: vectors of texts, and a search of files by what they mean."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import console
from agent.cli.completion import model_names
from agent.cli.options import MODEL_HERE, SETTINGS, Json, Memory, Threads, Verbose
from agent.errors import SprigError
from agent.files import atomic_write
from agent.text import display, json_text, shortened

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from agent.embedding.embedder import Embedder

    Vectors = npt.NDArray[np.float32]

embed_app = typer.Typer(**SETTINGS)
_MOST_INPUT = 64_000_000  # characters
_SHOWN = 60  # characters of a text


@embed_app.command()
def embed(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", autocompletion=model_names, help=f"{MODEL_HERE} --search can take embedding_model of the settings."
        ),
    ] = None,
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="What to embed.")] = None,
    file: Annotated[
        str | None, typer.Option("-f", "--file", metavar="FILE", help="Embed each line; - is standard input.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the vectors: .npy, or .jsonl with the texts.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--as", metavar="KIND", help="query or document: put before each text what the model wants there."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="Put this before each text.")] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Of a text that is too long, take the beginning.")] = False,
    pooling: Annotated[
        str | None, typer.Option(metavar="HOW", help="mean, cls or last, where the model's file says no way of pooling.")
    ] = None,
    search: Annotated[str | None, typer.Option(metavar="QUERY", help="Find passages below --in by what they mean.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--in", metavar="DIR", help="Folder to search; by default the current one.")
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, metavar="N", help="How many passages to show.")] = 5,
    threads: Threads = None,
    memory: Memory = None,
    json_: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make vectors of texts, or search files by what they mean, with an embedding model."""
    _check_usage(kind, prompt, search, folder, of_texts=bool(texts or file or output or truncate))
    if pooling not in (None, "mean", "cls", "last"):
        raise typer.BadParameter(f"{pooling!r} is none of mean, cls and last", param_hint="--pooling")
    with console.command(json=json_, verbose=verbose) as out:
        from agent.embedding.embedder import Embedder

        options: dict[str, Any] = {"pooling": pooling, "threads": threads, "memory": memory}
        if search is not None:
            if folder is not None and not folder.is_dir():
                raise SprigError(f"{display(str(folder))} is no folder; --in takes one to search")
            with Embedder(model or embedding_model(), **options) as embedder:
                _search(embedder, search, folder or Path(), limit, out)
            return
        if model is None:
            raise SprigError("there is no model: sprig embed MODEL TEXT")
        _check_output(output)
        wanted = [*(texts or []), *(_lines(file) if file is not None else [])]
        if not wanted:
            raise SprigError("there is no text: sprig embed MODEL TEXT, or --file FILE with one in each line")
        with Embedder(model, **options) as embedder:
            before = embedder.prompts[kind] if kind is not None else prompt or ""
            vectors = embedder.embed(wanted, prompt=before, truncate=truncate)
            if output is not None:
                _write(output, wanted, vectors)
            _show(embedder, wanted, vectors, before, output, out)


def _check_usage(kind: str | None, prompt: str | None, search: str | None, folder: Path | None, *, of_texts: bool) -> None:
    """Raises BadParameter where options do not go together."""
    if kind not in (None, "query", "document"):
        raise typer.BadParameter(f"{kind!r} is neither query nor document", param_hint="--as")
    if kind is not None and prompt is not None:
        raise typer.BadParameter("both say what stands before each text; give one of the two", param_hint="--as and --prompt")
    if search is None and folder is not None:
        raise typer.BadParameter("is the folder of a search; give --search QUERY too", param_hint="--in")
    if search is not None and (of_texts or kind is not None or prompt is not None):
        raise typer.BadParameter(
            "takes no texts, and nothing that is about them (--file, --output, --as, --prompt, --truncate)", param_hint="--search"
        )


def _show(
    embedder: Embedder, texts: Sequence[str], vectors: Vectors, prompt: str, output: Path | None, out: console.Console
) -> None:
    data: dict[str, Any] = {
        "model": embedder.file.path, "pooling": embedder.pooling, "width": embedder.width, "prompt": prompt, "count": len(texts),
    }  # fmt: skip
    if output is not None:
        out.result(
            {**data, "path": str(output)}, f"{len(texts)} vectors of {embedder.width} numbers are in {display(str(output))}"
        )
    elif out.json:
        out.result({**data, "vectors": [_numbers(vector) for vector in vectors]}, "")
    else:
        like = embedder.similarity(vectors, vectors[:1])[:, 0]
        rows = []
        for i, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
            numbers = " ".join(f"{x:.4f}" for x in vector[:4])
            beside = f"  cosine with the first {like[i]:.3f}" if i else ""
            rows.append(f"{shortened(display(text), _SHOWN)}\n    {numbers} ... {len(vector)} numbers{beside}")
        out.result(data, "\n".join(rows))


def _numbers(vector: Vectors) -> list[float]:
    """As few digits as tell a float32 from the next one."""
    return [float(str(x)) for x in vector]


def _search(embedder: Embedder, query: str, folder: Path, limit: int, out: console.Console) -> None:
    from agent.embedding.vectors import VectorStore
    from agent.tools.builtin.meaning import search_by_meaning
    from agent.tools.builtin.root import Root

    with VectorStore() as vectors:
        found, done = search_by_meaning(Root(folder), vectors, embedder, query, most=limit, on_document=telling(out))
    matches = [{"path": m.key, "first": m.first, "last": m.last, "score": round(m.score, 4), "text": m.text} for m in found]
    rows = [f"{display(m.key)}:{m.first}  {m.score:.3f}\n    {beginning(m.text)}" for m in found]
    seen = {"documents": done.documents, "embedded": done.embedded}
    out.result(
        {"model": embedder.file.path, "folder": str(folder), **seen, "matches": matches},
        "\n".join(rows) or f"there is no text below {display(str(folder))}",
    )


def telling(out: console.Console) -> Any:
    """Says on standard error how far an index is, where a person looks."""

    def told(seen: int, embedded: int) -> None:
        if embedded and sys.stderr.isatty():
            out.say(f"{seen} documents, {embedded} of them new or changed")

    return told


def beginning(text: str) -> str:
    """The first words of a passage, on one line."""
    return shortened(display(" ".join(text.split())), 3 * _SHOWN)


def embedding_model() -> str:
    """The embedding model of the settings. SprigError when there is none."""
    from agent.settings.use import load

    named = load(None).embedding_model
    if not named:
        raise SprigError("no embedding model is named: give one, or set embedding_model in the settings")
    return named


def _lines(file: str) -> list[str]:
    """The lines of a text file, or of standard input."""
    try:
        if file != "-":
            with Path(file).open(encoding="utf-8") as f:
                text = f.read(_MOST_INPUT + 1)
        else:
            text = sys.stdin.read(_MOST_INPUT + 1) if sys.stdin is not None else ""
            text.encode()  # in a C locale Python lets bytes that are no text through, as halves of characters
    except OSError as e:
        raise SprigError(f"cannot read {file}: {e.strerror}") from None
    except UnicodeError:
        raise SprigError(f"{'standard input' if file == '-' else display(file)} is no UTF-8 text") from None
    if len(text) > _MOST_INPUT:
        raise SprigError(f"{file} holds more than {_MOST_INPUT} characters; embed it in parts")
    return text.splitlines()


def _check_output(output: Path | None) -> None:
    if output is None:
        return
    if output.suffix not in (".npy", ".jsonl"):
        raise SprigError(f"{output.name} must end in .npy or .jsonl")
    if not output.absolute().parent.is_dir():
        raise SprigError(f"there is no folder {output.absolute().parent} to write {output.name} to")


def _write(output: Path, texts: Sequence[str], vectors: Vectors) -> None:
    import numpy as np

    if output.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, vectors)
        atomic_write(output, buffer.getvalue())
        return
    rows = ({"text": text, "vector": _numbers(vector)} for text, vector in zip(texts, vectors, strict=True))
    atomic_write(output, "".join(json_text(row) + "\n" for row in rows))
