"""The command line: a verb a function of the library."""

import inspect
import io
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import tyro
from tyro.conf import arg
from tyro.extras import subcommand_cli_from_dict

from relocal import __version__
from relocal.backbones import BACKBONES, TIMM
from relocal.cli.accounts import Check
from relocal.cli.console import INTERRUPTED, complain, warnings_shown
from relocal.cli.exporting import Export
from relocal.cli.labelling import Label
from relocal.cli.localizing import Calibrate, Evaluate, Localize, Map
from relocal.cli.public import Get, Paper
from relocal.cli.publishing import Publish
from relocal.cli.serving import Serve
from relocal.cli.sessions import Align
from relocal.cli.studies import Study
from relocal.cli.verbs import (
    Demo,
    ExportScene,
    Import,
    Train,
    Triangulate,
)
from relocal.cli.viewing import View
from relocal.errors import InputError, unknown
from relocal.losses import COUPLED, LOSSES
from relocal.plugins import import_modules
from relocal.pose import ROTATIONS
from relocal.studies.methods import DEPTHS
from relocal.training import PRESETS, TrainConfig, stored_config

_SHORT = {
    "--model": "--model.name",
    "--loss": "--loss.name",
    "--pretrained": "--backbone.weights",
}
"""Other names of options that are often given."""

Verb = (
    Import
    | Check
    | Get
    | Label
    | ExportScene
    | Publish
    | Triangulate
    | Map
    | Train
    | Calibrate
    | Evaluate
    | Study
    | Localize
    | View
    | Align
    | Export
    | Serve
    | Demo
    | Paper
)

VERBS: dict[str, type[Verb]] = {
    "import": Import,
    "check": Check,
    "get": Get,
    "label": Label,
    "export-scene": ExportScene,
    "publish": Publish,
    "triangulate": Triangulate,
    "map": Map,
    "train": Train,
    "calibrate": Calibrate,
    "evaluate": Evaluate,
    "study": Study,
    "localize": Localize,
    "view": View,
    "align": Align,
    "export": Export,
    "serve": Serve,
    "demo": Demo,
    "paper": Paper,
}


def main(arguments: list[str] | None = None) -> None:
    """Runs a verb and exits with its code: 0 done, 2 nothing done, 3 some of several failed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"relocal {__version__}")
        sys.exit(0)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no °
    try:
        with warnings_shown():
            code = parse(arguments).run()
    except InputError as error:
        code = complain(str(error))
    except BrokenPipeError:
        # Whoever reads the answers has had enough; what is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        # The disk, not the program: full, read-only, gone.
        code = complain(f"{error.filename or 'a file'}: {error.strerror or error}.")
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def parse(arguments: list[str]) -> Verb:
    """Turns arguments into a verb.

    A preset changes the defaults of train's options, and the depth of training those of study's;
    for a run that is resumed they are its own, so that an option which would change it stands out.
    What ``--import`` names is imported before the others are read, since it may bring names that
    they take.
    """
    if not arguments or arguments[0].startswith("-"):
        return subcommand_cli_from_dict(
            {**VERBS},
            prog="relocal",
            description="Where is the camera, and where is it looking? From one photo.",
            args=arguments,
        )
    name, *options = arguments
    if name not in VERBS:
        raise unknown("VERB", name, VERBS)
    options = [_long(option) for option in options]
    import_modules(_given(options, "--import"))
    try:
        verb = _parse(name, options, _depth(options) if name == "study" else _preset(options))
        if isinstance(verb, Train) and verb.resume and (old := stored_config(verb.out)) is not None:
            if verb.preset is not None:
                raise InputError(
                    "--preset: --resume goes on with the run's own options; leave it out."
                )
            return _parse(name, options, old)
    except InputError as error:
        raise InputError(f"{error} See relocal {name} --help.") from error
    return verb


def _parse(name: str, arguments: list[str], options: TrainConfig) -> Verb:
    @dataclass(frozen=True, kw_only=True)
    class Started(Train):
        __doc__ = _train_help()
        config: Annotated[TrainConfig, arg(name="")] = options

    @dataclass(frozen=True, kw_only=True)
    class Compared(Study):
        __doc__ = _study_help()
        config: Annotated[TrainConfig, arg(name="")] = options

    verb = {"train": Started, "study": Compared}.get(name, VERBS[name])
    return tyro.cli(verb, prog=f"relocal {name}", args=arguments)


def _train_help() -> str:
    """Train's help with the names that its options take, also those that ``--import`` brought."""
    return _with_names(Train, {**_names("--loss"), "--preset": PRESETS})


def _study_help() -> str:
    """The same for study's."""
    return _with_names(Study, _names("--losses"))


def _names(losses: str) -> dict[str, Iterable[str]]:
    return {
        losses: LOSSES,
        f"{losses}, behind a +": [*COUPLED, *(f"twin:{name}" for name in COUPLED)],
        "--model.rotation": ROTATIONS,
        "--backbone.name": [*BACKBONES, f"{TIMM}NAME"],
    }


def _with_names(verb: type[Verb], tables: Mapping[str, Iterable[str]]) -> str:
    listed = "\n".join(f"{option}: {', '.join(names)}" for option, names in tables.items())
    about, example, line = inspect.cleandoc(verb.__doc__ or "").partition("Example:")
    return f"{about}{listed}\n\n{example}{line}"


def _long(argument: str) -> str:
    """The full name of an option that has a short one."""
    name, *value = argument.split("=", 1)
    return "=".join([_SHORT.get(name, name), *value])


def _given(arguments: list[str], option: str) -> list[str]:
    """The values of an option, found before the others are read."""
    values: list[str] = []
    for previous, argument in pairwise(["", *arguments]):
        if previous == option:
            values.append(argument)
        elif argument.startswith(f"{option}="):
            values.append(argument.removeprefix(f"{option}="))
    return values


def _depth(arguments: list[str]) -> TrainConfig:
    """The options that ``study --train DEPTH`` starts from; a wrong one is refused later."""
    depth = (_given(arguments, "--train") or ["head"])[-1]
    return next((config for name, config in DEPTHS.items() if name == depth), DEPTHS["head"])


def _preset(arguments: list[str]) -> TrainConfig:
    """The options that ``--preset NAME`` starts from."""
    names = _given(arguments, "--preset")
    if not names:
        return TrainConfig()
    if names[-1] not in PRESETS:
        raise unknown("--preset", names[-1], PRESETS)
    return PRESETS[names[-1]]
