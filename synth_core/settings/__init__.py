"""Every option: what it means, which values it takes, and where its value comes from."""

from synth_core.settings.model import BudgetSettings, ProviderSettings, Settings, ValidationSettings

__all__ = ["BudgetSettings", "ProviderSettings", "Settings", "ValidationSettings"]
