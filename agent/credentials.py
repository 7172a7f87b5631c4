"""Keys sealed by `systemd-creds`, so that the disk alone no longer holds them.

systemd decrypts them into memory for the unit that asks for them by name, with a key in the TPM, with the
host's own (which lies on the same disk), or with both. What it takes here is the machine's own tool; with a
`host` key that keeps out who has only a backup, with a TPM also who has the card.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agent.keyfile import BadKeyFile, sync_folder
from agent.keystore import PREFIX, overwrite

TOOL = "systemd-creds"
WITH = ("auto", "tpm2", "host", "host+tpm2")
TIMEOUT_S = 60.0


def has_tpm() -> bool:
    """Whether systemd finds a TPM 2 that it can use: firmware, driver and device."""
    tool = shutil.which(TOOL)
    return tool is not None and subprocess.run([tool, "has-tpm2", "--quiet"], check=False).returncode == 0  # noqa: S603


def seal(path: Path, name: str, folder: Path, with_key: str) -> Path:
    """Put what is in a key file into a credential, see that it opens, then erase the file.

    Raises BadKeyFile where the tool is missing or fails; the file is still there then.
    """
    blob = folder / f"{PREFIX}{name}"
    fresh = blob.with_name(blob.name + ".new")
    secret = path.read_bytes()
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    named = f"--name={PREFIX}{name}"
    _run(["encrypt", f"--with-key={with_key}", named, "-", str(fresh)], secret)
    if _run(["decrypt", named, str(fresh), "-"], b"") != secret:
        raise BadKeyFile(f"{fresh}: expected to open as it was sealed, got something else")
    # Readable for the agent, which says in its status what the header tells of it.
    fresh.chmod(0o644)
    fresh.replace(blob)
    sync_folder(folder)
    overwrite(path)
    sync_folder(path.parent)
    return blob


def _run(arguments: Sequence[str], given: bytes) -> bytes:
    tool = shutil.which(TOOL)
    if tool is None:
        raise BadKeyFile(f"{TOOL}: expected it to be installed (systemd 250 or newer), got no such program")
    done = subprocess.run(  # noqa: S603
        [tool, *arguments], input=given, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise BadKeyFile(f"{TOOL} {arguments[0]}: {said[-1] if said else 'failed'}")
    return done.stdout
