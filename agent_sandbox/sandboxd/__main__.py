"""``python -m agent_sandbox.sandboxd``."""

import sys

from agent_sandbox.sandboxd.command_line import main

sys.exit(main())
