"""``python -m mesh`` is the console command ``mesh``."""

from __future__ import annotations

from mesh.cli import main

main()
