"""Run a command as somebody whom PostgreSQL accepts: it refuses to run as root.

A script of its own, run as ``python -I -S unprivileged.py MODE UID GID COMMAND...``; standard library only.

``setuid``     become UID:GID. Where that user cannot reach the command or the working folder (a home below
               ``/root``), keep the one capability that passes closed folders (CAP_DAC_OVERRIDE) instead of
               opening anybody's permissions.
``namespace``  stay who we are for the file system, and look like UID:GID inside a user namespace (Linux): for
               a uid without an entry in the user database, which initdb refuses as well.
"""

from __future__ import annotations

import ctypes
import os
import sys

_CLONE_NEWUSER = 0x10000000
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library; raise OSError where it fails."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def enter_namespace(uid: int, gid: int) -> None:
    """Look like ``uid:gid`` from here on; files are still reached as who we were."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    _call("unshare", _CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs 5 ms here
            file.write(text)


def become(uid: int, gid: int, command: str) -> None:
    """Become ``uid:gid`` for good, keeping CAP_DAC_OVERRIDE only where the paths ask for it."""
    linux = sys.platform == "linux"
    if linux:
        _call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if linux:
        # Capabilities are not effective at this point, so that os.access tells what the bare user could do.
        reachable = os.access(command, os.X_OK) and os.access(os.getcwd(), os.R_OK | os.X_OK)  # noqa: PTH109
        _set_capabilities(0 if reachable else 1 << _CAP_DAC_OVERRIDE)
        if not reachable:
            _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def _set_capabilities(mask: int) -> None:
    """Make ``mask`` the whole of this process's effective, permitted and inheritable capabilities."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    _call("capset", header, data)


def main(arguments: list[str]) -> None:
    """Change who we are and become the command; return only by an exception."""
    mode, uid, gid, *command = arguments
    if mode == "namespace":
        enter_namespace(int(uid), int(gid))
    else:
        become(int(uid), int(gid), command[0])
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as failure:
        sys.exit(f"cannot become an unprivileged user: {failure}")
