"""Configs from afar as files: `config/` in the state folder, and which of them an agent starts with.

`course.json` says what is confirmed, what is on trial and what became of the last document; it is replaced
whole, so that there is no moment between two courses. Texts are named by their hash and written before
anything names them. The file at the device stays as it is: a confirmed config stands in its place, without
what only that file may say.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import structlog

from agent import keyfile
from agent.config import Config
from agent.desired import candidate
from agent.mistakes import BadConfig
from agent.trial import Course, Edition, reason, reasons

FOLDER = "config"
COURSE = "course.json"
SUFFIX = ".toml"

log = structlog.get_logger("config")


class Shelf:
    """The folder of one device. It holds no secrets, and nothing that may never go back."""

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER

    def course(self) -> Course:
        """What is remembered; nothing where it cannot be read: then the file at the device is in force."""
        try:
            return Course.load(json.loads((self._folder / COURSE).read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return Course()
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.error("course cannot be read", path=str(self._folder / COURSE), error=type(error).__name__)
            return Course()

    def save(self, course: Course) -> None:
        """Durable when it returns. Texts that nothing needs any more go."""
        keyfile.write(self._folder / COURSE, json.dumps(course.dump()).encode())
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path.stem not in course.texts:
                path.unlink(missing_ok=True)

    def keep(self, text: str) -> str:
        """Durable when it returns; the name of the text."""
        name = digest(text)
        keyfile.write(self._folder / f"{name}{SUFFIX}", text.encode())
        return name

    def text(self, edition: Edition) -> str:
        """Raises OSError or ValueError for what is not as it was kept."""
        raw = (self._folder / f"{edition.text}{SUFFIX}").read_bytes()
        if sha256(raw).hexdigest() != edition.text:
            raise ValueError("the text has changed")
        return raw.decode()


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The config that an agent runs with, and why it is this one."""

    config: Config
    base: Config
    """The file at the device."""
    course: Course
    edition: Edition | None = None
    """None where it is the file at the device."""

    @property
    def source(self) -> str:
        """`device`, `fleet` or `trial`."""
        return "device" if self.edition is None else "trial" if self.course.trial else "fleet"


def take_up(base: Config, boot: str, mono_ns: int) -> InForce:
    """What to start with. That it was started is durable when this returns: a crash counts."""
    shelf = Shelf(base.state)
    before = shelf.course()
    course = before.started(boot, mono_ns)
    while True:
        if course != before:
            _save(shelf, course)
        before = course
        edition = course.trial.edition if course.trial else course.confirmed
        if edition is None:
            return InForce(config=base, base=base, course=course)
        try:
            config = candidate(shelf.text(edition), base, f"config {edition.version}")
            config.server()
        except BadConfig as bad:
            log.error("config cannot be used", version=edition.version, reason=str(bad))
            course = course.reverted(reasons(bad.mistakes))
        except (OSError, ValueError) as error:
            log.error("config cannot be read", version=edition.version, reason=str(error))
            course = course.reverted([reason("text", "the text that was sent", "another, or none")])
        else:
            return InForce(config=config, base=base, course=course, edition=edition)


def _save(shelf: Shelf, course: Course) -> None:
    """A full disk keeps nobody from starting: when a trial is over by its time or boot is seen each time."""
    try:
        shelf.save(course)
    except OSError as error:
        log.error("course cannot be written", reason=str(error))
