"""``fedpeft adapters``: what to do with adapters once they are trained."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fedpeft.cli.options import AsJson, Runs
from fedpeft.cli.shelf import Authority, Channel, FromShelf, Pinned, Visit
from fedpeft.cli.tables import show_facts, table
from fedpeft.device.versions.version import STABLE
from fedpeft.errors import AdapterError, FedpeftError

adapters = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List, inspect, compose, prune, quantize and merge adapters.\n\n"
    "An adapter is named by its folder, by its name in a store (`--store DIR`), or by its owner in a run "
    "(`--run latest`; `global` is everybody's). `list`, `show` and `verify` read a shelf of versions too (`--shelf`), "
    "where an adapter is named by its version.\n\nExample: `fedpeft adapters list --run latest`",
)

Names = Annotated[list[str], typer.Argument(help="Adapter folders, or names in the store or run.", show_default=False)]
Name = Annotated[str, typer.Argument(help="An adapter folder, or a name in the store or run.", show_default=False)]
Store = Annotated[Path | None, typer.Option(help="A folder that holds adapters by name.")]
Run = Annotated[str | None, typer.Option(help="A run's name or folder, or 'latest'.")]
BaseName = Annotated[str | None, typer.Option(help="The base, for adapters that do not name theirs, as peft's do not.")]
Out = Annotated[Path | None, typer.Option(help="The folder to write.")]
As = Annotated[str | None, typer.Option("--as", help="The name to store the result under, with --store.")]


@adapters.command("list")
def list_(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders to look through.", show_default=False)] = None,
    store: Store = None,
    run: Run = None,
    runs: Runs = Path("runs"),
    shelf: FromShelf = None,
    pinned: Pinned = None,
    ca: Authority = None,
    channel: Channel = STABLE,
    as_json: AsJson = False,
) -> None:
    """List the adapters in folders, in a store, of a run, or on a shelf of versions.

    Example: `fedpeft adapters list --run latest`
    """
    from fedpeft.cli.adapter_source import Source

    if shelf is not None:
        Visit(shelf, pinned, ca, channel).list(as_json)
        return
    entries = Source(store, run, runs).entries(folders or [])
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in entries]))
        return
    rows = [
        (e.name, e.peft_type, e.form, e.rank or "", f"{e.parameters:,}", f"{e.bytes:,}", e.base[:12], e.created[:16])
        for e in entries
    ]
    total = f"{len(entries)} adapters, {sum(e.bytes for e in entries) / 1e6:.2f} MB"
    table(total, ("name", "method", "form", "rank", "numbers", "bytes", "base", "created"), rows, "rank numbers bytes")


@adapters.command()
def show(
    name: Name,
    store: Store = None,
    run: Run = None,
    runs: Runs = Path("runs"),
    base: BaseName = None,
    shelf: FromShelf = None,
    pinned: Pinned = None,
    ca: Authority = None,
    channel: Channel = STABLE,
    as_json: AsJson = False,
) -> None:
    """Show what an adapter is, and what it changes most.

    Example: `fedpeft adapters show user-02 --run latest`
    """
    if shelf is not None:
        Visit(shelf, pinned, ca, channel).show(name, as_json)
        return
    from fedpeft.adapters.compress import profile
    from fedpeft.cli.adapter_source import Source

    source = Source(store, run, runs, base)
    adapter, entry = source.load(name, unknown=True), source.entry(name)
    facts: dict[str, Any] = {**asdict(entry), "tensors": len(adapter.schema.shapes)}
    try:
        modules = profile(adapter)
    except AdapterError as error:
        modules, facts["modules"] = [], f"not taken apart: {error}"
    if as_json:
        typer.echo(json.dumps(facts | ({"modules": [asdict(m) for m in modules]} if modules else {})))
        return
    show_facts({key: value for key, value in facts.items() if value}, False)
    rows = [
        (m.module, m.rank, f"{m.scaling:.3g}", f"{m.norm:.3g}", f"{m.share:.1%}", m.directions) for m in modules[:8]
    ]
    columns = ("changes most", "rank", "scaling", "norm", "share", "directions for 90 %")
    if modules:
        table("", columns, rows, "rank scaling norm share")


@adapters.command()
def compose(
    names: Names,
    weights: Annotated[str | None, typer.Option(help="One number for each, such as 0.7,-0.3; 1 if not given.")] = None,
    rank: Annotated[int | None, typer.Option(help="Bring the result down to this rank.")] = None,
    out: Out = None,
    store: Store = None,
    as_: As = None,
    run: Run = None,
    runs: Runs = Path("runs"),
    base: BaseName = None,
    as_json: AsJson = False,
) -> None:
    """Add LoRA adapters up, exactly: the change of the result is the weighted sum of their changes.

    Example: `fedpeft adapters compose global user-02 --weights 1,-0.5 --run latest --out forget`
    """
    from fedpeft.adapters.algebra import cat
    from fedpeft.adapters.compress import compress
    from fedpeft.adapters.factors import change_error
    from fedpeft.cli.adapter_source import Source

    source = Source(store, run, runs, base)
    parts = [source.load(name) for name in names]
    numbers = _weights(weights, len(parts))
    result = cat(parts, numbers)
    facts: dict[str, Any] = {"compose_error": change_error(result, parts, numbers)}
    if rank is not None:
        smaller = compress(result, rank)
        result = smaller.adapter
        facts |= {"kept_energy": smaller.energy, "compress_error": smaller.error}
    facts["rank"] = max(result.config["r"], *result.config["rank_pattern"].values(), 0)
    show_facts({"inputs": names, "weights": numbers, **facts, **source.write(result, out, as_)}, as_json)


@adapters.command()
def prune(
    name: Name,
    density: Annotated[float, typer.Option(help="Share of the numbers to keep.")] = 0.5,
    by: Annotated[
        Literal["rank", "magnitude", "change"], typer.Option(help="What is dropped; see the guide.")
    ] = "rank",
    out: Out = None,
    store: Store = None,
    as_: As = None,
    run: Run = None,
    runs: Runs = Path("runs"),
    base: BaseName = None,
    as_json: AsJson = False,
) -> None:
    """Keep the part of an adapter that matters most: its strongest directions, or its largest numbers.

    Numbers that became zero are stored sparse when that is smaller; peft opens the result of `--by rank` only.

    Example: `fedpeft adapters prune user-02 --density 0.25 --run latest --out small`
    """
    from fedpeft.adapters.compress import prune_rank
    from fedpeft.adapters.prune import prune as zero
    from fedpeft.adapters.sparse import smallest
    from fedpeft.cli.adapter_source import Source

    source = Source(store, run, runs, base)
    adapter = source.load(name)
    pruned = prune_rank(adapter, density) if by == "rank" else zero(adapter, density, by)
    result = pruned.adapter if by == "rank" else smallest(pruned.adapter)
    facts = {
        "input": name,
        "kept": pruned.kept,
        "of": pruned.of,
        "kept_energy": pruned.energy,
        "change_error": pruned.error,
        "bytes_before": adapter.file_bytes,
    }
    show_facts(facts | source.write(result, out, as_), as_json)


@adapters.command()
def quantize(
    name: Name,
    bits: Annotated[int, typer.Option(help="8 or 4; 32 brings a packed adapter back to peft's own layout.")] = 8,
    block: Annotated[int, typer.Option(help="Numbers that share a scale; 0 for one scale per row.")] = 32,
    out: Out = None,
    store: Store = None,
    as_: As = None,
    run: Run = None,
    runs: Runs = Path("runs"),
    base: BaseName = None,
    as_json: AsJson = False,
) -> None:
    """Store an adapter in 8 or 4 bits per number; every command opens it like any other.

    Example: `fedpeft adapters quantize user-02 --bits 4 --run latest --out small`
    """
    from fedpeft.adapters.factors import relative_error
    from fedpeft.adapters.quantize import quantize as rounded
    from fedpeft.cli.adapter_source import Source

    source = Source(store, run, runs, base)
    adapter = source.load(name)
    facts = {"input": name, "bits": bits, "bytes_before": source.entry(name).bytes}
    if bits == 32:
        show_facts(facts | source.write(adapter, out, as_), as_json)
        return
    result = rounded(adapter, bits, block)
    facts["change_error"] = relative_error(result.dequantize(), adapter)
    show_facts(facts | source.write(result, out, as_), as_json)


@adapters.command()
def merge(
    name: Name,
    base: Annotated[str, typer.Option(help="A builtin name, a folder or a hub id.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    dtype: Annotated[
        str, typer.Option(help="Precision of the result; bfloat16 rounds small changes away.")
    ] = "float32",
    trained_on: Annotated[
        str | None,
        typer.Option(help="How the base was held in training: full, nf4 or int8, with a dtype as nf4:float32."),
    ] = None,
    store: Store = None,
    run: Run = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write a base with an adapter folded into its weights, a folder that transformers opens by itself.

    An adapter trained on a quantized base is folded into that base's dequantized weights.

    Example: `fedpeft adapters merge user-02 --run latest --base keyboard --out my-model`
    """
    from fedpeft.adapters.merge import merge as fold
    from fedpeft.adapters.merge import mismatch
    from fedpeft.base import load_base
    from fedpeft.base.dequantize import load_dequantized
    from fedpeft.base.held import held_as, name_of
    from fedpeft.cli.adapter_source import Source, whole

    source = Source(store, run, runs, base)
    held = held_as(trained_on or source.trained_on, "bfloat16")
    adapter = source.load(name)
    published = load_base(base, dtype)
    adapter.require_base(published.fingerprint)
    error, loaded = 0.0, published
    if held[1] != "full":
        loaded = load_dequantized(base, held, dtype)
        error = mismatch(adapter, loaded.model, published.model)
    with fold(loaded.model, adapter) as merged, whole(out) as draft:
        loaded.model.save_pretrained(draft)
        loaded.tokenizer.save_pretrained(draft)
    size = sum(path.stat().st_size for path in out.iterdir())
    facts = {
        "merged": name,
        "base": base,
        "dtype": dtype,
        "weights": len(merged.names),
        "lost_to_rounding": merged.lost,
    }
    if held[1] != "full":
        facts |= {"trained_on": name_of(*held, usual=""), "error_into_published": error}
    show_facts({**facts, "written": str(out), "bytes": size}, as_json)


@adapters.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="All of a store or run if none is named.")] = None,
    store: Store = None,
    run: Run = None,
    runs: Runs = Path("runs"),
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the store's index again first.")] = False,
    shelf: FromShelf = None,
    pinned: Pinned = None,
    ca: Authority = None,
    channel: Channel = STABLE,
    as_json: AsJson = False,
) -> None:
    """Read adapters and check that they are whole. Exits with 1 when one is not.

    Example: `fedpeft adapters verify --store adapters`
    """
    from fedpeft.cli.adapter_source import Source

    if shelf is not None:
        raise typer.Exit(0 if Visit(shelf, pinned, ca, channel).verify(names or [], as_json) else 1)
    source = Source(store, run, runs)
    if rebuild:
        if source.store is None:
            raise FedpeftError("--rebuild", "no store", "--store DIR")
        source.store.rebuild()
    checked, wrong = source.verify(names or [])
    if as_json:
        typer.echo(json.dumps({"checked": checked, "wrong": wrong}))
    else:
        typer.echo("\n".join(wrong.values()) if wrong else f"{checked} whole")
    raise typer.Exit(1 if wrong else 0)


@adapters.command()
def add(
    store: Annotated[Path, typer.Option(help="The store; made when missing.")],
    names: Annotated[list[str] | None, typer.Argument(help="All of a run if none is named.")] = None,
    as_: Annotated[str | None, typer.Option("--as", help="The name to store it under, instead of its own.")] = None,
    run: Run = None,
    runs: Runs = Path("runs"),
    base: BaseName = None,
    as_json: AsJson = False,
) -> None:
    """Copy adapters into a store.

    Example: `fedpeft adapters add --run latest --store adapters`
    """
    from fedpeft.adapters.store import AdapterStore
    from fedpeft.cli.adapter_source import Source

    source = Source(None, run, runs, base)
    chosen = names or list(source.people)
    if not chosen or (as_ is not None and len(chosen) > 1):
        raise FedpeftError("adapters", chosen, "at least one, and only one with --as")
    loaded = [(as_ or Path(name).resolve().name, source.load(name), source.tags(name)) for name in chosen]
    kept = AdapterStore(store)
    added = [kept.add(name, adapter, tags) for name, adapter, tags in loaded]
    size = sum(entry.bytes for entry in added)
    show_facts({"store": str(store), "added": [entry.name for entry in added], "bytes": size}, as_json)


@adapters.command()
def remove(
    name: Annotated[str, typer.Argument(help="Its name in the store.", show_default=False)],
    store: Annotated[Path, typer.Option(help="The store.")],
    as_json: AsJson = False,
) -> None:
    """Delete an adapter from a store.

    Example: `fedpeft adapters remove user-02 --store adapters`
    """
    from fedpeft.cli.adapter_source import Source

    found = Source(store).store
    if found is not None:
        found.remove(name)
    show_facts({"store": str(store), "removed": name}, as_json)


def _weights(text: str | None, count: int) -> list[float]:
    """Read as many numbers as there are adapters."""
    try:
        numbers = [1.0] * count if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise FedpeftError("--weights", text, f"{count} numbers, such as {','.join(['0.5'] * count)}")
    return numbers
