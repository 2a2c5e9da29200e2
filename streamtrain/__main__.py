"""``python -m streamtrain``."""

from streamtrain.cli import main

main()
