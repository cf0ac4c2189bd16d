"""The command line: a verb a function of the library."""

import io
import os
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import tyro
from tyro.conf import arg, subcommand

from relocal import __version__
from relocal.cli.console import INTERRUPTED, complain, warnings_shown
from relocal.cli.public import Get, Paper
from relocal.cli.studies import Study
from relocal.cli.verbs import Demo, Evaluate, Import, Localize, Train, Triangulate
from relocal.errors import InputError, unknown
from relocal.studies.methods import DEPTHS
from relocal.training import PRESETS, TrainConfig, stored_config

_SHORT = {
    "--model": "--model.name",
    "--loss": "--loss.name",
    "--pretrained": "--backbone.weights",
}
"""Other names of options that are often given."""


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


Verb = Import | Get | Triangulate | Train | Evaluate | Study | Localize | Demo | Paper


def parse(arguments: list[str]) -> Verb:
    """Turns arguments into a verb.

    A preset changes the defaults of train's options, and the depth of training those of study's;
    for a run that is resumed they are its own, so that an option which would change it stands out.
    """
    arguments = [_long(argument) for argument in arguments]
    verb = _parse(arguments, _preset(arguments), _depth(arguments))
    if isinstance(verb, Train) and verb.resume and (old := stored_config(verb.out)) is not None:
        if verb.preset is not None:
            raise InputError("--preset: --resume goes on with the run's own options; leave it out.")
        return _parse(arguments, old, old)
    return verb


def _parse(arguments: list[str], options: TrainConfig, of_study: TrainConfig) -> Verb:
    @dataclass(frozen=True, kw_only=True)
    class Started(Train):
        __doc__ = Train.__doc__
        config: Annotated[TrainConfig, arg(name="")] = options

    @dataclass(frozen=True, kw_only=True)
    class Compared(Study):
        __doc__ = Study.__doc__
        config: Annotated[TrainConfig, arg(name="")] = of_study

    verbs = (
        Annotated[Import, subcommand("import")]
        | Annotated[Get, subcommand("get")]
        | Annotated[Triangulate, subcommand("triangulate")]
        | Annotated[Started, subcommand("train")]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Compared, subcommand("study")]
        | Annotated[Localize, subcommand("localize")]
        | Annotated[Demo, subcommand("demo")]
        | Annotated[Paper, subcommand("paper")]
    )
    return tyro.cli(
        verbs,
        prog="relocal",
        description="Where is the camera, and where is it looking? From one photo.",
        args=arguments,
    )


def _long(argument: str) -> str:
    """The full name of an option that has a short one."""
    name, *value = argument.split("=", 1)
    return "=".join([_SHORT.get(name, name), *value])


def _given(arguments: list[str], option: str) -> str | None:
    """The value of an option, found before the others are read."""
    value = None
    for previous, argument in pairwise(["", *arguments]):
        if previous == option:
            value = argument
        elif argument.startswith(f"{option}="):
            value = argument.removeprefix(f"{option}=")
    return value


def _depth(arguments: list[str]) -> TrainConfig:
    """The options that ``study --train DEPTH`` starts from; a wrong one is refused later."""
    depth = _given(arguments, "--train")
    return next((config for name, config in DEPTHS.items() if name == depth), DEPTHS["head"])


def _preset(arguments: list[str]) -> TrainConfig:
    """The options that ``--preset NAME`` starts from."""
    name = _given(arguments, "--preset")
    if name is not None and name not in PRESETS:
        raise unknown("--preset", name, PRESETS)
    return TrainConfig() if name is None else PRESETS[name]
