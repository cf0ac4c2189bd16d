"""``python -m relocal`` is the command ``relocal``."""

from relocal.cli import main

if __name__ == "__main__":
    main()
