"""The provider's key, where the settings name a Prefect Secret block for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr

from flows.prefect_server.connection import MUTED, connected, is_outage, server_is_configured
from flows.prefect_server.server import SILENT
from synth_core.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from synth_core.settings import Settings


def fetch_key(settings: Settings) -> SecretStr | None:
    """As `load_key`, outside of a run: asks the Prefect server that the user has set up."""
    name = settings.provider.secret_block
    if not name:
        return None
    if not server_is_configured():
        raise UsageError(f"the Secret block {name!r} is on a Prefect server: say which by PREFECT_API_URL")
    with connected({**SILENT, **MUTED}):
        return load_key(settings)


def load_key(settings: Settings) -> SecretStr | None:
    """The key in the block, None where none is named.

    Raises `UsageError` where the block holds none, `EnvironmentFault` where its server does not answer.
    """
    name = settings.provider.secret_block
    if not name:
        return None
    from prefect.blocks.system import Secret

    try:
        value: object = Secret.load(name).get()  # type: ignore[union-attr]
    except Exception as error:  # of Prefect's: no such block, or one that it can't read
        said = " ".join(str(error).split()) or type(error).__name__
        kind = EnvironmentFault if is_outage(error) else UsageError
        raise kind(f"cannot load the Secret block {name!r}: {said:.300}") from None
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"the Secret block {name!r} holds no key, which is a text")
    return SecretStr(value.strip())
