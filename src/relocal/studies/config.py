"""What a study compares; its dataclass is also the command line's options."""

from dataclasses import dataclass
from typing import get_args

from relocal.errors import InputError, unknown
from relocal.evaluation import MEAN, ORACLE, RETRIEVAL
from relocal.studies.methods import MAX_SETTINGS, Depth, Method, parse_method

REFERENCE = "default"
BASELINES = {MEAN, ORACLE, RETRIEVAL}


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a study compares, and how."""

    losses: str = "default,posenet,posenet+frustum,posenet+twin:frustum"
    """Methods, comma between them: a loss, and after slashes its options (form=squared) or
    training's (model.rotation=6d); A~B takes positions of A and rotations of B."""
    train: Depth = "head"
    """What learns: only the regressor on cached features, all but the stem, or everything."""
    seeds: int = 3
    """Trainings of each method on each fold."""
    folds: str = "own"
    """Folds of each scene's split: own (as imported), all, or numbers such as 0,3."""
    tune: int = MAX_SETTINGS
    """Settings of each loss that are tried on validation blocks, at most 4; 1 tunes nothing, 2 and
    3 leave out the larger weights."""
    tune_train: Depth | None = None
    """What learns while settings are tried; none is what --train says. With head, trying takes
    seconds, and longer trainings take the setting that was best on frozen features."""
    final: bool = False
    """Train on all training images and read the test images; else validation is reported."""
    primary: str | None = None
    """The contrast that is fixed before test images are read, A:B, first against second, in
    position; the others are adjusted for their number."""
    secondary: str = ""
    """A few more that are fixed beforehand, A:B with commas between. With the primary one in
    rotation they are a family of their own, which the many others do not weigh on."""

    def __post_init__(self) -> None:
        if self.train not in get_args(Depth):
            raise unknown("--train", self.train, get_args(Depth))
        if self.tune_train not in (None, *get_args(Depth)):
            raise unknown("--tune-train", self.tune_train, get_args(Depth))
        if not 1 <= self.seeds <= 100:
            raise InputError(f"--seeds: must be 1 to 100, not {self.seeds}.")
        if not 1 <= self.tune <= MAX_SETTINGS:
            raise InputError(f"--tune: must be 1 to {MAX_SETTINGS}, not {self.tune}.")

    def methods(self) -> list[Method]:
        """The methods, in the order given.

        Raises:
            InputError: If one is unknown, or stands there twice.
        """
        methods = [parse_method(text) for text in self.losses.split(",") if text.strip()]
        texts = [method.text for method in methods]
        if twice := {text for text in texts if texts.count(text) > 1}:
            raise InputError(f"--losses: {twice.pop()} stands there twice.")
        if not methods:
            raise InputError("--losses: name at least one.")
        if taken := BASELINES & set(texts):
            raise InputError(f"--losses: {taken.pop()} is what a baseline is called; rename it.")
        return methods

    def reference(self) -> str:
        """The method that all others are compared with: ``default``, or the first one."""
        texts = [method.text for method in self.methods()]
        return REFERENCE if REFERENCE in texts else texts[0]

    def primary_pair(self) -> tuple[str, str] | None:
        """The two methods of ``primary``.

        Raises:
            InputError: If they are not two of the methods.
        """
        return None if self.primary is None else self._pair("--primary", self.primary)

    def secondary_pairs(self) -> list[tuple[str, str]]:
        """The methods of each contrast of ``secondary``.

        Raises:
            InputError: If one does not name two of the methods, or stands there twice.
        """
        texts = [text for text in self.secondary.split(",") if text.strip()]
        pairs = [self._pair("--secondary", text) for text in texts]
        for i, (a, b) in enumerate(pairs):
            there = [pair for pair in (*pairs[:i], self.primary_pair()) if pair is not None]
            if {a, b} in [set(pair) for pair in there]:
                raise InputError(f"--secondary {a}:{b}: these two are compared already.")
        return pairs

    def _pair(self, option: str, text: str) -> tuple[str, str]:
        """Two methods with a colon between; a twin's name has one, too."""
        methods, text = [method.text for method in self.methods()], "".join(text.split())
        cuts = [i for i, letter in enumerate(text) if letter == ":"]
        pairs = [(text[:cut], text[cut + 1 :]) for cut in cuts]
        for a, b in pairs:
            if a in methods and b in methods and a != b:
                if a == self.reference():
                    raise InputError(f"{option} {text}: {a} is the reference; write {b}:{a}.")
                return a, b
        for a, b in pairs:
            if (a in methods) != (b in methods):
                raise unknown(f"{option} {text}", b if a in methods else a, methods)
        raise InputError(f"{option} {text}: write A:B, two of the methods of --losses.")
