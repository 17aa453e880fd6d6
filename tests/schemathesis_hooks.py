"""What schemathesis checks of every answer besides its own rules; loaded by its command."""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.fuzzing import tells_too_much


@schemathesis.check
def no_fault_of_ours(ctx: Any, response: Any, case: Any) -> None:
    """No status 500 (502, 503 and 504 are documented), and nothing of our code in any body."""
    assert response.status_code != 500, "a fault of the server"
    assert not tells_too_much(response.text), "the body shows code"
