"""For all tests: Ctrl-C works, also where whoever started pytest (a shell's ``&``, say) had it ignored."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # what pytest starts inherits the ignoring, not a handler
