"""Automations that the server carries out for every run of Synth."""

from __future__ import annotations

from datetime import timedelta

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.events import ResourceSpecification

_SILENCE = timedelta(seconds=90)  # three heartbeats, where workers run with one every 30 s
_ENDED = ("Completed", "Failed", "Cancelled", "Crashed")


def create() -> None:
    """Make those that the server does not have yet."""
    with get_client(sync_client=True) as client:
        for automation in automations():
            if not client.read_automations_by_name(automation.name):
                client.create_automation(automation)


def automations() -> list[AutomationCore]:
    """Nothing stays Running for ever: a flow run whose heartbeat stops is marked as crashed."""
    heartbeat = "prefect.flow-run.heartbeat"
    return [
        AutomationCore(
            name="synth: crash runs without a heartbeat",
            description="A killed process can't say that it died; three missed heartbeats say it.",
            trigger=EventTrigger(
                after={heartbeat},
                expect={heartbeat, *(f"prefect.flow-run.{state}" for state in _ENDED)},
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=_SILENCE,
            ),
            actions=[
                ChangeFlowRunState(
                    name="Crashed",
                    force=True,
                    state=StateType.CRASHED,
                    message="No heartbeat for 90 s: its process is gone. The next run goes on with it.",
                )
            ],
        )
    ]
