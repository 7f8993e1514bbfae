"""Automations that the server carries out for every run of Synth."""

from __future__ import annotations

from datetime import timedelta

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.events import ResourceSpecification

from flows.prefect_server.dead_runs import FLOWS, SILENCE

_ENDED = ("Completed", "Failed", "Cancelled", "Crashed")


def create(silence: timedelta = SILENCE) -> None:
    """Make them on the server, or bring those that it has up to date."""
    with get_client(sync_client=True) as client:
        for automation in automations(silence):
            for there in client.read_automations_by_name(automation.name):
                client.update_automation(there.id, automation)
                break
            else:
                client.create_automation(automation)


def automations(silence: timedelta = SILENCE) -> list[AutomationCore]:
    """Nothing stays Running for ever: a flow run whose heartbeat stops or never comes is marked Crashed."""
    heartbeat, pending, running = (f"prefect.flow-run.{sign}" for sign in ("heartbeat", "Pending", "Running"))
    minutes = silence.total_seconds() / 60
    return [
        AutomationCore(
            name="synth: crash runs without a heartbeat",
            description="A killed process can't say that it died; missed heartbeats say it.",
            trigger=EventTrigger(
                # By states too, which the server itself tells: a process may die before its first heartbeat.
                after={heartbeat, pending, running},
                expect={heartbeat, running, *(f"prefect.flow-run.{state}" for state in _ENDED)},
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                match_related=ResourceSpecification(
                    {"prefect.resource.role": ["flow"], "prefect.resource.name": list(FLOWS)}
                ),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=silence,
            ),
            actions=[
                ChangeFlowRunState(
                    name="Crashed",
                    force=True,
                    state=StateType.CRASHED,
                    message=f"No heartbeat for {minutes:g} min: its process is gone; the next run goes on.",
                )
            ],
        )
    ]
