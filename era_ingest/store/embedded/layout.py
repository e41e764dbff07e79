"""Where the embedded server keeps what: every path below ``ERA_HOME/postgres``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder of one embedded server.

    Attributes:
        root: ``ERA_HOME/postgres``, absolute, links resolved: two spellings of a home are one server.
    """

    root: Path

    @classmethod
    def of(cls, home: Path) -> Self:
        """Return the layout below a home; nothing is created."""
        return cls(home.expanduser().resolve() / "postgres")

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder; it appears in one rename, whole."""
        return self.root / "data"

    @property
    def users_lock(self) -> Path:
        """Locked shared by every program that uses the server: the kernel's reference count."""
        return self.root / "users.lock"

    @property
    def server_lock(self) -> Path:
        """Locked exclusively by the server's own processes for as long as one of them lives."""
        return self.root / "server.lock"

    @property
    def log(self) -> Path:
        """What the server says; bounded by the warden."""
        return self.root / "log" / "server.log"

    @property
    def socket_pointer(self) -> Path:
        """Names the folder of the server's socket, which may lie elsewhere (see ``sockets``)."""
        return self.root / "socket_folder"

    @property
    def local_socket_folder(self) -> Path:
        """The socket's folder where the path is short and plain enough."""
        return self.root / "run"

    @property
    def user_configuration(self) -> Path:
        """Settings of the user's own, read after ours; made once, with nothing in it."""
        return self.root / "custom.conf"
