"""``python -m slim_actors`` is ``slim-actors``."""

from slim_actors.cli import main

if __name__ == "__main__":
    main()
