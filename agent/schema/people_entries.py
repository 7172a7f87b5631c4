"""Entries about parcels in a courier's hands, and about who somebody is."""

from agent.schema.entry_type import EntryType, Subject
from agent.workflow import Lane

STATE = Lane.STATE
PARCEL, DRIVER, PERSON = Subject.PARCEL, Subject.DRIVER, Subject.PERSON
UNIT, DEVICE = Subject.UNIT, Subject.DEVICE

CUSTODY = (
    EntryType("custody.seen", PARCEL, "A parcel passed a read point that nobody stands at.", "unit scan"),
    EntryType("custody.accepted", PARCEL, "The parcel came into the driver's custody.", "unit by scan"),
    EntryType(
        "custody.offered", PARCEL, "The parcel was laid on the table of a handover.", "unit by to scan"
    ),
    EntryType(
        "custody.handed_over", PARCEL, "The parcel left the driver's custody.", "unit from to:receiver of"
    ),
    EntryType(
        "custody.exception_noted",
        PARCEL,
        "Something is the matter with the parcel.",
        "unit by exception scan",
    ),
    EntryType(
        "custody.refused",
        PARCEL,
        "A scan changed nothing, and why.",
        "unit reason scan holder? limit? after_s?",
    ),
    EntryType(
        "custody.refusals_counted", DEVICE, "Refusals that were counted, not told one by one.", "reason count"
    ),
    EntryType(
        "custody.corrected",
        PARCEL,
        "An entry before is wrong; `holder` has the parcel now.",
        "unit by corrects:text what:text reason holder:maybe_text scan instead:text?",
    ),
    EntryType(
        "custody.correction_opened",
        DRIVER,
        "The next parcel scanned is one about which the last entry is wrong.",
        "unit reason",
        STATE,
    ),
    EntryType("custody.correction_lapsed", DRIVER, "No parcel was scanned to correct.", "reason", STATE),
    EntryType("custody.correction_cancelled", DRIVER, "Nothing is to be corrected.", "unit", STATE),
    EntryType("custody.untracked", PARCEL, "The parcel is not kept track of any longer.", "reason"),
    EntryType(
        "custody.session_opened",
        DRIVER,
        "A driver is on duty.",
        "unit factors level knowledge_age_s renewed resumed held second_person?",
    ),
    EntryType(
        "custody.session_closed",
        DRIVER,
        "A driver is no longer on duty, and why.",
        "reason held handover_open",
    ),
    EntryType(
        "custody.handover_opened", DRIVER, "What is scanned from now on is for somebody else.", "unit to"
    ),
    EntryType(
        "custody.handover_closed", DRIVER, "All that lay on the table has left.", "unit to:receiver count"
    ),
    EntryType("custody.handover_refused", DRIVER, "A handover could not be closed, and why.", "unit reason"),
    EntryType(
        "custody.handover_abandoned", DRIVER, "All that lay on the table was taken back.", "to reason count"
    ),
    EntryType(
        "custody.exception_opened",
        DRIVER,
        "The next parcel scanned is one with an exception.",
        "unit exception",
        STATE,
    ),
    EntryType(
        "custody.exception_cancelled",
        DRIVER,
        "The exception that was announced is taken back.",
        "unit exception",
        STATE,
    ),
    EntryType(
        "custody.control_refused",
        UNIT,
        "A control code was scanned that does not fit now.",
        "unit control reason",
        STATE,
    ),
    EntryType(
        "custody.code_refused", UNIT, "A recipient's code came that nobody waits for.", "reason", STATE
    ),
)

_VERDICT = "unit kind outcome subject_ref:maybe_text knowledge_age_s reader_paused? detail?"

_TEMPLATE = "unit slot:maybe_count subject_ref reason?"

IDENTITY = (
    EntryType("identity.factor_shown", PERSON, "A factor was right, and more are needed.", _VERDICT, STATE),
    EntryType("identity.refused", PERSON, "A factor was not granted, and why.", _VERDICT),
    EntryType(
        "identity.second_person_awaited",
        DRIVER,
        "One person is proven; another has to be.",
        "unit action factors",
        STATE,
    ),
    EntryType("identity.login_lapsed", PERSON, "A login was not finished.", "unit factors reason?", STATE),
    EntryType(
        "identity.card_asked", UNIT, "A fingerprint card is to sign.", "unit purpose transaction", STATE
    ),
    EntryType(
        "identity.card_asserted",
        PERSON,
        "A fingerprint card has signed: whoever has its public key can check this.",
        "unit client_data auth_data signature",
    ),
    EntryType(
        "identity.clone_suspected",
        PERSON,
        "A card signed rightly, but its counter did not grow: there may be two.",
        "unit counter_above? counter?",
    ),
    EntryType(
        "identity.ignored",
        UNIT,
        "Something was shown that nobody asked for or can judge.",
        "reading:text",
        STATE,
    ),
    EntryType(
        "identity.peripheral_changed",
        UNIT,
        "Where people show who they are, another device is than was there before.",
        "changes",
    ),
    EntryType(
        "identity.peripheral_believed", UNIT, "The device that was doubted is the right one again.", "about"
    ),
    EntryType(
        "identity.inventory_mismatch",
        UNIT,
        "A module holds fingers that nobody knows, or lacks some.",
        "foreign:slots missing:slots",
    ),
    EntryType("identity.inventory_matched", UNIT, "A module holds what it should again."),
    EntryType("identity.template_stored", UNIT, "A finger was put into a module.", _TEMPLATE),
    EntryType("identity.template_not_stored", UNIT, "A finger could not be put into a module.", _TEMPLATE),
    EntryType("identity.template_deleted", UNIT, "A finger was taken out of a module.", _TEMPLATE),
    EntryType(
        "identity.template_not_deleted", UNIT, "A finger could not be taken out of a module.", _TEMPLATE
    ),
    EntryType("identity.unlock_opened", DRIVER, "A supervisor is about to end a wait.", "unit", STATE),
    EntryType("identity.unlock_cancelled", DRIVER, "A supervisor did not end a wait.", "", STATE),
    EntryType("identity.unlock_lapsed", DRIVER, "A supervisor did not end a wait in time.", "", STATE),
    EntryType(
        "identity.unlock_refused", PERSON, "A supervisor found no wait that could be ended.", "unit by reason"
    ),
    EntryType("identity.reader_unlocked", UNIT, "A supervisor ended a reader's rest.", "unit by"),
    EntryType("identity.subject_unlocked", PERSON, "A supervisor ended somebody's wait.", "unit by"),
    EntryType("identity.erased", DEVICE, "What could be was erased of one person.", "rows counters copies?"),
    EntryType(
        "identity.roster_damaged",
        DEVICE,
        "The roster's file was damaged or gone; the fleet has to bring it again.",
        "reason file:maybe_text kept more_may_be_lost given_up",
    ),
    EntryType("identity.tamper_armed", DEVICE, "The switch at the case is shut and heeded.", "unit input"),
    EntryType("identity.wipe_begun", DEVICE, "This device is about to erase its secrets.", "by"),
    EntryType("identity.wiped", DEVICE, "This device has erased its secrets.", "by rows keys not_erased"),
    EntryType("identity.renewed", DEVICE, "A device that was wiped has new secrets.", "wiped_by:text"),
)
