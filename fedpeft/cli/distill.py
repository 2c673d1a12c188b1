"""``fedpeft distill``: ask a large base about public text, once, for many small ones to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from torch import nn

    from fedpeft.base import Base


def distill(
    teacher: Annotated[str, typer.Argument(help="A base: a known name, a folder, or a hub id.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    text: Annotated[str, typer.Option(help="public, or a text file with one text per line.")] = "public",
    adapter: Annotated[str | None, typer.Option(help="A run whose global adapter the teacher wears.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    top: Annotated[int, typer.Option(min=1, help="Pieces whose probabilities are kept of each place.")] = 16,
    window: Annotated[int, typer.Option(min=8, max=4096, help="Tokens of a window.")] = 64,
    windows: Annotated[int, typer.Option(min=1, help="How many windows.")] = 512,
    temperature: Annotated[float, typer.Option(help="Softens the distribution; the students' too.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides which part of the text is read.")] = 0,
    dtype: Annotated[str, typer.Option(help="What the teacher computes in.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="Where: cpu, cuda or auto.")] = "cpu",
) -> None:
    """Write what a teacher says of public text; `training.distillation.logits` names the file.

    Example: fedpeft distill smollm2-135m --out logits.safetensors --windows 256
    """
    import numpy as np
    import torch

    from fedpeft.base import load_base
    from fedpeft.base.placement import device_of, place
    from fedpeft.base.tokenizer import vocabulary_hash
    from fedpeft.cli.progress import Progress
    from fedpeft.data.public import read_public, rows_of
    from fedpeft.errors import FedpeftError
    from fedpeft.training.shared_logits import Origin, ask

    if not 0 < temperature < float("inf"):
        raise FedpeftError("--temperature", temperature, "a number above 0")
    where = device_of(device)
    base = load_base(teacher, dtype)
    rows = rows_of(read_public(text), base.tokenizer, window, np.random.default_rng(seed), windows)
    if not len(rows):
        raise FedpeftError("--text", text, f"at least {window} tokens")
    model, worn = _wearing(base, adapter, runs)
    place(model, where)
    origin = Origin(base.fingerprint, worn, vocabulary_hash(base.tokenizer), temperature)
    with Progress() as bars:
        read = torch.from_numpy(rows.astype(np.int32))
        shared = ask(model, read, top, origin, lambda done, total: bars.stage("windows", done, total))
    size = shared.save(out)
    kept = float(1 - shared.rest.double().exp().mean())
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{out}: {len(rows)} windows of {window} tokens, {size / 1e6:.1f} MB; "
        f"the {top} likeliest pieces hold {kept:.0%} of the probability"
    )


def _wearing(base: Base, run: str | None, runs: Path) -> tuple[nn.Module, str]:
    """Return the base's model, with a run's global adapter on it if one is wanted, and that adapter's hash."""
    if run is None:
        return base.model, ""
    from hashlib import sha256

    from fedpeft.adapters import Adapter
    from fedpeft.device.folders import EVERYBODY, SCENARIO, find_run
    from fedpeft.export.run import find_adapters
    from fedpeft.methods import Attached
    from fedpeft.methods.attached import SHARED
    from fedpeft.scenario import load_scenario
    from fedpeft.seeds import derive

    folder = find_run(run, runs)
    scenario = load_scenario(folder / SCENARIO)
    adapter = Adapter.load(find_adapters(folder)[EVERYBODY], base.fingerprint)
    attached = Attached(base, scenario.shared_method, None, derive(scenario.seed, "initial adapter"))
    attached.schemas[SHARED].check(dict(adapter.schema.shapes))
    attached.write(SHARED, adapter.vector)
    return attached.model, sha256(adapter.vector.tobytes()).hexdigest()
