"""API pages of every module, from the docstrings, without a network.

    python docs/api.py [FOLDER]

Writes HTML to FOLDER, by default build/api, which git ignores. Needs the extra ``docs``. What
cannot be documented ends it with an error.
"""

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import entrob


def modules() -> list[str]:
    """Every module, since pdoc leaves out those that a package's ``__all__`` does not name."""
    found = pkgutil.walk_packages(entrob.__path__, "entrob.")
    return ["entrob", *(module.name for module in found if module.name != "entrob.__main__")]


def main(folder: Path) -> None:
    """Write the pages."""
    for name in entrob.__all__:  # which are loaded on first use, and pdoc looks without using them
        setattr(entrob, name, getattr(entrob, name))
    warnings.filterwarnings("error", module="pdoc")
    warnings.filterwarnings("ignore", "The module specification")  # named twice, written once
    pdoc.render.configure(docformat="google", footer_text=f"entrob {entrob.__version__}")
    pdoc.pdoc(*modules(), output_directory=folder)
    print(folder / "index.html")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/api"))
