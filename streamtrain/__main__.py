"""``python -m streamtrain``."""

import os

try:
    from streamtrain.cli import main
except KeyboardInterrupt:  # there is no handler yet
    os._exit(130)

main()
