"""Who runs the server: PostgreSQL refuses root, and a uid that the user database does not know."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from era_ingest.errors import ConfigurationError

if sys.platform != "win32":
    import pwd

if TYPE_CHECKING:
    from era_ingest.store.embedded.layout import Layout

_SCRIPT = Path(__file__).with_name("unprivileged.py")
_NAMES = ("postgres", "nobody")
_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_KILL, _CAP_SETGID, _CAP_SETUID = 0, 1, 5, 6, 7
_NEEDED = sum(1 << bit for bit in (_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_KILL, _CAP_SETGID, _CAP_SETUID))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the server's processes are.

    Attributes:
        uid: Owner of the data folder on disk.
        gid: Its group.
        prefix: Command line that puts the rest of it into this identity; empty where nothing has to change.
    """

    uid: int
    gid: int
    prefix: tuple[str, ...]

    def give(self, path: Path) -> None:
        """Make a file or a folder with all that is in it the server's own; a no-op where it is already."""
        if os.geteuid() != 0:
            return
        status = path.lstat()
        if (status.st_uid, status.st_gid) == (self.uid, self.gid):
            return
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.lchown(Path(folder, name), self.uid, self.gid)
        os.lchown(path, self.uid, self.gid)  # the top last: where it is right, all below is


def server_identity(data: Path, home: Path) -> Identity:
    """Choose who runs the server.

    An ordinary user: that user. Root: the owner of the data folder or of the home, where that is an ordinary
    user, else ``postgres`` or ``nobody``. A uid that the user database does not know (containers), and a root
    without its usual capabilities: a user namespace, where the system allows one.

    Args:
        data: The data folder; need not exist.
        home: ERA_HOME; exists.

    Raises:
        ConfigurationError: The data folder belongs to another user.
    """
    uid = os.geteuid()
    if uid == 0 and _may_change_user():
        user = _ordinary_owner(data) or _ordinary_owner(home) or _service_user()
        return Identity(user.pw_uid, user.pw_gid, _prefix("setuid", user.pw_uid, user.pw_gid))
    _check_owner(data, uid)
    if uid != 0 and _known(uid) is not None:
        return Identity(uid, os.getegid(), ())
    user = _service_user()
    return Identity(uid, os.getegid(), _prefix("namespace", user.pw_uid, user.pw_gid))


def match_owner(layout: Layout) -> None:
    """Give files that root made in somebody's home to that somebody, who will use them without root."""
    if os.geteuid() != 0:
        return
    owner = layout.root.parent.stat()
    if owner.st_uid == 0:
        return
    places = (layout.root, layout.log.parent, layout.log, layout.socket_pointer, layout.user_configuration)
    for path in (*places, layout.users_lock, layout.server_lock):
        if os.path.lexists(path):
            os.lchown(path, owner.st_uid, owner.st_gid)


def _prefix(mode: str, uid: int, gid: int) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(_SCRIPT), mode, str(uid), str(gid))


def _known(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _ordinary_owner(path: Path) -> pwd.struct_passwd | None:
    """Return the path's owner, where it exists and belongs to somebody known who is not root."""
    try:
        uid = path.stat().st_uid
    except FileNotFoundError:
        return None
    return _known(uid) if uid != 0 else None


def _service_user() -> pwd.struct_passwd:
    """Return a user without privileges that every system has."""
    for name in _NAMES:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    for user in pwd.getpwall():
        if user.pw_uid != 0:
            return user
    raise ConfigurationError(
        "PostgreSQL does not run as root, and the system knows no other user. Add one (useradd postgres), "
        "run as an ordinary user, or set ERA_DATABASE_URL."
    )


def _may_change_user() -> bool:
    """Say whether root has its usual powers; containers may have taken them away."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True  # no Linux: root is root
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return match is None or int(match[1], 16) & _NEEDED == _NEEDED


def _check_owner(data: Path, uid: int) -> None:
    try:
        owner = data.stat().st_uid
    except FileNotFoundError:
        return
    if owner != uid:
        raise ConfigurationError(
            f"The embedded database {data} belongs to uid {owner}, and this program runs as uid {uid}. "
            "Run as its owner, or choose another ERA_HOME."
        )
