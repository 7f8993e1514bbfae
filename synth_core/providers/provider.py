"""The columns of the table of providers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One row of the table.

    module: holds `connect`. Imported at first use, so an unused SDK costs nothing. Empty for the user's own
        function.
    key_variable: environment variable that holds the key.
    key_required: no call works without the key.
    default_model: the model to ask if the user names none. Empty: the user must name one.
    needs_base_url: the user must give the server's address.
    price_list: the provider's id in genai-prices. Empty: the price of its models is unknown.
    batch_module: holds `connect` of its half-price batch mode. Empty: it has none.
    writes_here: this machine computes the answers, and the same seed gives the same answer. So there is no
        network and no price, and limits, retries and the answer cache do not apply.
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
