"""What the table says of one provider."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One row of the table.

    module: holds `connect`; imported when the provider is first used, so an SDK nobody uses costs nothing.
        Empty for a function of the user's own.
    key_variable: environment variable of its key; `key_required`: no call works without it.
    default_model: model asked where the user names none; empty: the user has to.
    needs_base_url: the address of the server has to be given.
    price_list: the provider's id in genai-prices; empty: its models are unpriced.
    batch_module: holds `connect` of its half-price batch mode; empty: it has none.
    writes_here: answers are computed on this machine, the same for the same seed: no network, no price, and
        nothing to limit, retry or remember.
    """

    name: str
    module: str
    key_variable: str = ""
    key_required: bool = False
    default_model: str = ""
    needs_base_url: bool = False
    price_list: str = ""
    batch_module: str = ""
    writes_here: bool = False
