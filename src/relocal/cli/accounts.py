"""The verb that prints what became of everything that a scene's source listed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from relocal.cli.console import counted
from relocal.scene import Scene, check, load_scene
from relocal.scene.account import EXAMPLES, Account, Tally
from relocal.scene.scene import some


@dataclass(frozen=True, kw_only=True)
class Check:
    """Open a scene, and print what became of everything that its source listed.

    Example: relocal check scenes/heads
    """

    scene: Positional[Path]
    """The scene."""

    def run(self) -> int:
        """Prints the account."""
        scene = load_scene(self.scene)
        print(f"{self.scene}: {_contents(scene)}.")
        account = check(scene)
        if account is None:
            print("No account was kept of what its source listed; import it again for one.")
            return 0
        for line in account_lines(account):
            print(line)
        return 0


def _contents(scene: Scene) -> str:
    parts = [f"{len(names)} {split}" for split, names in scene.splits.items()]
    split = {name for names in scene.splits.values() for name in names}
    if rest := len(scene) - len(split):
        parts.append(f"{rest} in neither")
    return f"{counted(len(scene), 'image')} ({', '.join(parts)})"


def account_lines(account: Account) -> Iterator[str]:
    """All of an account, a line each thing."""
    for kind, tally in (("image", account.images), ("map point", account.points)):
        if tally is not None:
            everything = "all read" if not tally.left else f"{tally.read} read"
            yield f"{counted(tally.listed, kind)} listed, {everything}."
            yield from _reasons(tally, kind, EXAMPLES)
    for notice in account.notices:
        yield f"{notice.code}: {notice.text}"


def left_lines(account: Account) -> Iterator[str]:
    """What was left aside, a line a reason."""
    yield from _reasons(account.images, "image")
    if account.points is not None:
        yield from _reasons(account.points, "map point")


def _reasons(tally: Tally, kind: str, limit: int = 5) -> Iterator[str]:
    for reason, count in tally.left.items():
        names = list(tally.examples.get(reason, ()))
        # Not all names are kept, but how many there are.
        named = f": {some([*names, *[''] * (count - len(names))], limit)}" if names else ""
        listed = counted(tally.listed, f"listed {kind}")
        yield f"{count} of {listed} left out, {reason}{named}."
