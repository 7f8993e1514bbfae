"""Every option: its meaning, the values it accepts, and where its value comes from."""

from synth_core.settings.model import BudgetSettings, ProviderSettings, Settings, ValidationSettings

__all__ = ["BudgetSettings", "ProviderSettings", "Settings", "ValidationSettings"]
