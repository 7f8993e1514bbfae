"""Read the provider's key from the Prefect Secret block that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr

from flows.prefect_server.connection import MUTED, connected, is_outage, server_is_configured
from flows.prefect_server.server import SILENT
from synth_core.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from synth_core.settings import Settings


def fetch_key(settings: Settings) -> SecretStr | None:
    """Like `load_key`, but outside a run: connects to the Prefect server that the user has configured."""
    name = settings.provider.secret_block
    if not name:
        return None
    if not server_is_configured():
        raise UsageError(f"set PREFECT_API_URL to the Prefect server that holds the Secret block {name!r}")
    with connected({**SILENT, **MUTED}):
        return load_key(settings)


def load_key(settings: Settings) -> SecretStr | None:
    """Return the key in the Secret block; None if the settings name no block.

    Raises `UsageError` if the block holds no key, `EnvironmentFault` if the server does not answer.
    """
    name = settings.provider.secret_block
    if not name:
        return None
    from prefect.blocks.system import Secret

    try:
        value: object = Secret.load(name).get()  # type: ignore[union-attr]
    except Exception as error:  # Prefect's own: there is no such block, or it cannot be read
        said = " ".join(str(error).split()) or type(error).__name__
        kind = EnvironmentFault if is_outage(error) else UsageError
        raise kind(f"cannot load the Secret block {name!r}: {said:.300}") from None
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"the Secret block {name!r} holds no key; a key is a non-empty string")
    return SecretStr(value.strip())
