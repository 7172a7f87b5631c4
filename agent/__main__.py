"""`python -m agent` is `postern`."""

import sys

from agent.cli import main

sys.exit(main())
