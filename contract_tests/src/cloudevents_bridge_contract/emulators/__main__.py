"""`python -m cloudevents_bridge_contract.emulators install [NAME…]`."""

from __future__ import annotations

import sys

from cloudevents_bridge_contract.emulators.venvs import RECIPES, NotInstalledError


def main(arguments: list[str]) -> int:
    """Install the emulators named, or all. One that cannot be had is said, and is no failure: its cells are not run."""
    command, *names = arguments or [""]
    unknown = [name for name in names if name not in RECIPES]
    if command != "install" or unknown:
        known = ", ".join(RECIPES)
        print(f"usage: python -m cloudevents_bridge_contract.emulators install [NAME…], of {known}", file=sys.stderr)
        return 2
    for name in names or RECIPES:
        recipe = RECIPES[name]
        try:
            said = "installed" if recipe.install() else "is there"
        except NotInstalledError as error:
            said = f"not installed: {error}"
        print(f"{name} {recipe.version}: {said}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
