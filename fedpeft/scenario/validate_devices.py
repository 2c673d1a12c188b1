"""Which devices can work in one federation, and which ways to save memory can work on them."""

from __future__ import annotations

from collections import Counter
from math import isclose

from fedpeft.errors import ScenarioError
from fedpeft.scenario.devices import DeviceTable
from fedpeft.scenario.model import Scenario
from fedpeft.training import Training


def refuse_devices(scenario: Scenario) -> None:
    """Refuse classes of devices that do not cover the clients, or that the task or the method forbids.

    Raises
    ------
    ScenarioError
        With the class, what was found, what was expected and why.
    """
    if not scenario.devices:
        return
    _cover(scenario)
    _precisions(scenario)
    own = scenario.personalization.training
    for device in scenario.classes:
        longest = scenario.data.window
        if device.window is not None and device.window > longest:
            raise ScenarioError(f"{_field(device)}.window", device.window, f"at most data.window = {longest}")
        for training in (scenario.training, own):
            refuse_thrift(scenario, f"devices[{device.name}]", device.thrifty(training), str(device.dtype))


def refuse_thrift(scenario: Scenario, field: str, training: Training, dtype: str) -> None:
    """Refuse ways to save memory where they cannot work.

    Parameters
    ----------
    scenario : Scenario
    field : str
        The table that asks for them.
    training : Training
    dtype : str
        What the base computes in.
    """
    if training.checkpointing and not scenario.shared_method.checkpointing:
        name = scenario.shared_method.name
        raise ScenarioError(
            f"{field}.checkpointing", True, "false", f"{name} keeps keys and values that cannot be computed again"
        )
    if training.chunk is not None and scenario.task.kind == "classification":
        raise ScenarioError(f"{field}.chunk", training.chunk, "task.kind = 'next_word'", "few classes need no chunks")
    taught = training.distillation
    if training.chunk is not None and taught is not None and not taught.logits:
        raise ScenarioError(
            f"{field}.chunk", training.chunk, "no distillation", "a live teacher needs all logits at once"
        )
    if training.autocast and dtype != "float32":
        raise ScenarioError(f"{field}.autocast", True, "base.dtype = 'float32'", "the base computes in it already")
    if training.micro_batch is not None and training.micro_batch > training.batch:
        raise ScenarioError(f"{field}.micro_batch", training.micro_batch, f"at most batch = {training.batch}")


def _cover(scenario: Scenario) -> None:
    """Refuse classes that overlap or leave somebody out, as far as that shows before the clients are known."""
    names, owners = Counter(device.name for device in scenario.devices), dict[str, str]()
    for device in scenario.devices:
        field = f"devices[{device.name}]"
        if names[device.name] > 1:
            raise ScenarioError("devices.name", device.name, "names used once")
        if (device.share is None) == (device.clients is None):
            found = "neither" if device.share is None else "both"
            raise ScenarioError(field, found, "share or clients")
        for client in device.clients or ():
            if client in owners:
                raise ScenarioError(f"{field}.clients", client, "a client named once", f"{owners[client]} has it")
            owners[client] = device.name
    shares = [device.share for device in scenario.devices if device.share is not None]
    if shares and not isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise ScenarioError("devices.share", round(sum(shares), 6), "shares that sum to 1")


def _precisions(scenario: Scenario) -> None:
    """Refuse precisions that a task, a method or the other classes cannot work with."""
    method, classes = scenario.shared_method, scenario.classes
    for device in classes:
        if device.precision != "full" and scenario.task.kind == "caption":
            raise ScenarioError(
                f"{_field(device)}.precision", device.precision, "full", "vision–language bases are not quantized yet"
            )
        if device.dtype == "float16" and len({other.dtype for other in classes}) > 1:
            # bfloat16 and float16 round a start to different numbers, and neither holds the other's.
            raise ScenarioError(f"{_field(device)}.dtype", "float16", "float16 everywhere, or bfloat16 and float32")
        if method.name == "full" and (device.dtype, device.precision) != ("float32", "full"):
            found = f"{device.dtype}, {device.precision}"
            raise ScenarioError(_field(device), found, "float32, full", "full trains the base's own weights")
    if method.precision != "full" and all(device.precision == "full" for device in classes):
        raise ScenarioError("devices.precision", "full", f"a class that {method.name} trains on", "or use lora")


def _field(device: DeviceTable) -> str:
    return f"devices[{device.name}]"
