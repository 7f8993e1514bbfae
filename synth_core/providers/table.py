"""The table of providers. To add one, write its module (see call.py) and add a row here."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from pydantic import SecretStr

from synth_core.errors import UsageError
from synth_core.providers.call import Complete, Connection, load_ca
from synth_core.providers.own import connect_function
from synth_core.providers.pricing import price
from synth_core.providers.provider import Provider
from synth_core.records import Usage
from synth_core.settings import Settings

Connect = Callable[[Connection], AbstractAsyncContextManager[Complete]]


PROVIDERS: dict[str, Provider] = {
    row.name: row
    for row in (
        Provider(
            name="constructive",
            module="synth_core.providers.constructive_api",
            default_model="constructive",
            writes_here=True,
        ),
        Provider(
            name="gemini",
            module="synth_core.providers.gemini_api",
            key_variable="GEMINI_API_KEY",
            key_required=True,
            default_model="gemini-3.8-flash",
            price_list="google",
            batch_module="synth_core.providers.gemini_batch",
        ),
        Provider(
            name="openai",
            module="synth_core.providers.openai_api",
            key_variable="OPENAI_API_KEY",
            key_required=True,
            default_model="gpt-5.4-mini",
            price_list="openai",
            batch_module="synth_core.providers.openai_batch",
        ),
        Provider(
            name="local",
            module="synth_core.providers.openai_api",
            key_variable="LOCAL_API_KEY",
            default_model="default",
            needs_base_url=True,
        ),
    )
}


def find_provider(name: str) -> Provider:
    """The row of that name, or a new one for `package.module:function`; `UsageError` for any other name."""
    if row := PROVIDERS.get(name):
        return row
    if ":" in name:
        return Provider(name=name, module="", default_model=name)
    known = ", ".join(PROVIDERS)
    raise UsageError(f"unknown provider {name!r}; known: {known}, or package.module:function of your own")


def load_connect(provider: Provider) -> Connect:
    """The provider's `connect` function. Raises `UsageError` if the user's own function cannot be loaded."""
    if provider.name not in PROVIDERS:
        return connect_function(provider.name)
    connect: Connect = importlib.import_module(provider.module).connect
    return connect


def key_of(provider: Provider, given: SecretStr | None = None) -> SecretStr | None:
    """The provider's key: `given` (from a Secret block), else the environment's, else None."""
    if given is not None and given.get_secret_value():
        return given
    value = os.environ.get(provider.key_variable, "").strip() if provider.key_variable else ""
    return SecretStr(value) if value else None


def require_key(settings: Settings, given: SecretStr | None = None) -> None:
    """Refuse settings with which no call can work.

    Raises `UsageError`, one line that names what to set: for an unknown provider, a missing key or address,
    a batch mode that the provider lacks, a budget in USD without a known price, or an unreadable CA bundle.
    """
    provider = find_provider(settings.model_name)
    options = settings.provider
    if provider.key_required and key_of(provider, given) is None:
        raise UsageError(
            f"provider {provider.name} needs a key: set the environment variable {provider.key_variable}"
            " (or use --model-name constructive, which needs none)"
        )
    if provider.needs_base_url and not options.base_url:
        raise UsageError(
            f"provider {provider.name} needs the address of its server: --base-url http://127.0.0.1:8000/v1"
        )
    if options.batch and not provider.batch_module:
        offered = ", ".join(row.name for row in PROVIDERS.values() if row.batch_module)
        raise UsageError(f"provider {provider.name} has no batch mode; --provider-batch is for {offered}")
    if options.sizes != "small" and not provider.writes_here:
        # Other sizes are tried outside the sandbox, so this is allowed only for programs written here.
        raise UsageError(f"--sizes {options.sizes} is for --model-name constructive, not {provider.name}")
    model = options.model_id or provider.default_model
    require_price(settings, provider, model)
    load_ca(options.ca_bundle)
    if provider.name not in PROVIDERS:
        load_connect(provider)


def require_price(settings: Settings, provider: Provider, model: str) -> None:
    """Raise `UsageError` for a budget in USD if the model's price is not known."""
    if settings.budget.usd and price(provider, model, Usage(output_tokens=1)) is None:
        raise UsageError(
            f"the price of {provider.name}'s model {model!r} is not known, so --budget-usd cannot be kept;"
            " give --budget-tokens or --budget-calls instead"
        )
