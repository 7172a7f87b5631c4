"""Entries about configs that the fleet sends: tried, kept, refused, taken back."""

from agent.schema.entry_type import EntryType, Subject

DEVICE = Subject.DEVICE

_WHICH = "version:count sha256"

CONFIG = (
    EntryType(
        "config.explained",
        DEVICE,
        "A config was only looked at: what it would do.",
        f"{_WHICH} effects changes:list brokers_away:texts?",
    ),
    EntryType("config.refused", DEVICE, "A config cannot be used here, and why.", f"{_WHICH} reasons"),
    EntryType(
        "config.trial_postponed",
        DEVICE,
        "A config is to be tried once nobody is at work here, or when so much time is over.",
        f"{_WHICH} at_work:texts at_most_s:number",
    ),
    EntryType(
        "config.trial_begun",
        DEVICE,
        "A config is about to be tried; what it does.",
        f"{_WHICH} confirm_timeout_s:number units:texts effects changes:list waited_s:number? "
        "interrupts:texts? brokers_away:texts?",
    ),
    EntryType(
        "config.trial_started", DEVICE, "The agent runs on a config on trial.", f"{_WHICH} starts left_s"
    ),
    EntryType("config.confirmed", DEVICE, "A config stays.", f"{_WHICH} reasons? unchanged:flag?"),
    EntryType("config.reverted", DEVICE, "A config was taken back, and why.", f"{_WHICH} reasons"),
)
