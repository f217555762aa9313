"""What the board under us is and can do."""

import sys

# What board.json may name as `board`.
NAMES = ("unix",)
# An operating system takes an exit status; a bare board would start over again.
HAS_EXIT_STATUS = sys.platform in ("linux", "darwin")
