"""``python -m mesh`` is the console command ``mesh``."""

from __future__ import annotations

from mesh.cli import main

if __name__ == "__main__":  # processes that are spawned read this file too
    main()
