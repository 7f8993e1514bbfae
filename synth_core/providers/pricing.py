"""Prices of calls, from the offline price list of genai-prices. An unknown model is unpriced, not free."""

from __future__ import annotations

import logging

from synth_core.providers.provider import Provider
from synth_core.records import Usage

BATCH_SHARE = 0.5  # the batch modes of Gemini and OpenAI cost half


def price(provider: Provider, model: str, usage: Usage, *, batch: bool = False) -> float | None:
    """The price of one call in US dollars: 0.0 for programs written here, None for an unknown model."""
    if provider.writes_here:
        return 0.0
    if not provider.price_list:
        return None
    import genai_prices  # here, because its price list loads slowly and most runs do not need it

    logging.getLogger("genai_prices").setLevel(logging.ERROR)
    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens + usage.thinking_tokens,
    )
    try:
        cost = genai_prices.calc_price(tokens, model_ref=model, provider_id=provider.price_list)
    except (LookupError, ValueError):  # ValueError: a server reported more cached than input tokens
        return None
    return float(cost.total_price) * (BATCH_SHARE if batch else 1.0)
