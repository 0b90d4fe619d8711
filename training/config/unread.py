"""Which keys are read by nothing that a command runs: said of `--set`, and no matter in files, which hold every key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from models import registry
from models.network_settings import NetworkSettings

from .launch import launched
from .objectives import FLAT, OBJECTIVES, dotted
from .overrides import Override, read_override
from .own_network import own_network
from .schema import TASKS, Method, Task, schema

#: What one process has no use for.
BETWEEN_PROCESSES = ("wire", "sync_batchnorm", "timeout")


def unread(task: Task, model: str, methods: Sequence[Method], overrides: Sequence[str]) -> list[str]:
    """Return a note for each of the `key=value` texts of `--set` that neither the model nor a method reads."""
    known = schema(task)
    return [
        f"--set {text}: it changes nothing; {why}"
        for text in overrides
        for why in _reasons(read_override(text, known), task, model, methods)
    ]


def of_al_alone(task: Task, model: str) -> set[str]:
    """Return the keys at the top level that no other method than AL reads with this model."""
    theirs = {*TASKS[task].model_fields}
    theirs.update(*(entry.settings.model_fields for entry in registry.models(task) if entry.name == model))
    return {*registry.objective(FLAT).settings_of(task).model_fields} - theirs


def _reasons(override: Override, task: Task, model: str, methods: Sequence[Method]) -> Iterator[str]:
    """Yield why the key is not read, which is nothing where it is."""
    key = override.key
    if key == OBJECTIVES:
        inside = override.value if isinstance(override.value, Mapping) else ()
        names = list(override.path[1:2] or inside)
        if not set(names) & {*methods}:
            yield from (f"{dotted(name)} has the settings of {name}, which is not run" for name in names)
    elif key in BETWEEN_PROCESSES:
        if launched().world == 1:
            yield f"{key} is about several processes, and this is one; torchrun starts more"
    elif key in NetworkSettings.model_fields:
        if own_network(model) is None:
            yield f"{key} is a setting of a network of your own (module:function), and the model is {model}"
    elif key not in TASKS[task].model_fields:
        of_models = [entry.name for entry in registry.models(task) if key in entry.settings.model_fields]
        of_al = key in registry.objective(FLAT).settings_of(task).model_fields
        if model in of_models or (of_al and FLAT in methods):
            return
        owners = [*of_models, *[FLAT] * of_al]
        theirs = [
            f"; {dotted(method, key)} is {method}'s"
            for method in methods
            if method not in (FLAT, "bp") and key in registry.objective(method).settings_of(task).model_fields
        ]
        verb = "are" if owners[1:] else "is"
        yield f"{key} is a setting of {', '.join(owners)}, which {verb} not run{''.join(theirs)}"
