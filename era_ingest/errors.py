"""Every error that this project raises on purpose.

    EraError
    ├── PermanentError                    trying again cannot help
    │   ├── MalformedDocumentError        bytes that are no book: file, JSON pointer, reason
    │   ├── BookRefusedError              a book of which nothing can be loaded, with every defect
    │   ├── InvalidNameError              a book or domain name that cannot be used
    │   ├── NotFoundError                 what was asked for by its name or id is not there
    │   ├── ConflictError                 it clashes with what is there already
    │   ├── RequestRejectedError          the server refuses these inputs (400, 413, 422, 424)
    │   │   └── RequestTooLargeError      it would take fewer or shorter inputs: split
    │   └── ResponseMismatchError         a reply with a wrong count, size, or value
    ├── TransientError                    trying again later can help
    │   ├── RateLimitedError              429 "slow down"; ``retry_after_s`` where the server said it
    │   ├── UpstreamUnavailableError      refused, reset, 5xx
    │   │   └── UpstreamTimeoutError      no whole answer within the request's time limit
    │   ├── QueueFullError                as many jobs wait as may; ``retry_after_s``
    │   └── StoreUnavailableError         the database or a disk is away, full or restarting
    ├── OutcomeUnknownError               sent, but whether it took effect is not known
    ├── BudgetExceededError               a limit on tokens or money that the user set is reached
    └── ConfigurationError                a setting, key, model or permission must be mended by a person
        ├── AuthenticationError           401, 403: the key
        ├── ModelNotFoundError            404, or a local model that is not fetched yet
        └── QuotaExhaustedError           429 "insufficient_quota": no money left; never retried

A message says what happened, where, and what to do next. Attributes are typed, public, and survive pickling
(errors cross process borders: the readers run in a pool).
"""

from __future__ import annotations

from typing import Any


class EraError(Exception):
    """Base of all errors of this project.

    Args:
        message: What happened, where, and what to do next.
        **attributes: Typed facts; each becomes an attribute of the same name.
    """

    def __init__(self, message: str, **attributes: Any) -> None:
        super().__init__(message)
        self.message = message
        self._attributes = attributes
        for name, value in attributes.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self._attributes)


def _rebuild(cls: type[EraError], message: str, attributes: dict[str, Any]) -> EraError:
    """Build an error again on the other side of a pickle."""
    error = cls.__new__(cls)
    EraError.__init__(error, message, **attributes)
    return error


class PermanentError(EraError):
    """Trying again cannot help."""


class MalformedDocumentError(PermanentError):
    """Bytes that are no book.

    Args:
        message: What is wrong, and what to do.
        file: The file's path as it was found.
        pointer: RFC 6901 JSON pointer of the place, ``""`` for the whole document.
        reason: A short stable code, such as ``not_json`` or ``truncated``.
    """

    file: str
    pointer: str
    reason: str

    def __init__(self, message: str, *, file: str, pointer: str = "", reason: str) -> None:
        super().__init__(message, file=file, pointer=pointer, reason=reason)


class BookRefusedError(PermanentError):
    """A book of which nothing can be loaded.

    Args:
        message: What is wrong, and what to do.
        defects: ``core.model.Defect`` of each thing that was refused, in document order.
    """

    defects: tuple[Any, ...]

    def __init__(self, message: str, *, defects: tuple[Any, ...]) -> None:
        super().__init__(message, defects=defects)


class NotFoundError(PermanentError):
    """What was asked for by its name or id is not there."""


class ConflictError(PermanentError):
    """It clashes with what is there already.

    Args:
        message: What clashes, and what to do.
        reason: A short stable code.
    """

    reason: str

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason)


class InvalidNameError(PermanentError):
    """A book or domain name that cannot be used."""

    name: str
    reason: str

    def __init__(self, message: str, *, name: str, reason: str) -> None:
        super().__init__(message, name=name, reason=reason)


class RequestRejectedError(PermanentError):
    """The server refuses these inputs; with several in one request, one of them may be the cause.

    Args:
        message: What the server said, bounded.
        status: HTTP status; None where there was none.
        hints: ``core.limiter.ServerHints`` of the reply, for flow control; None where there was no reply.
    """

    status: int | None
    hints: object | None

    def __init__(self, message: str, *, status: int | None = None, hints: object | None = None) -> None:
        super().__init__(message, status=status, hints=hints)


class RequestTooLargeError(RequestRejectedError):
    """The server would take fewer or shorter inputs a request."""


class ResponseMismatchError(PermanentError):
    """A reply that is not what was asked for: wrong count, wrong size, not finite, zero, or not JSON."""


class TransientError(EraError):
    """Trying again later can help."""


class RateLimitedError(TransientError):
    """The server said to slow down.

    Args:
        message: What the server said, bounded.
        retry_after_s: Seconds that the server asked to wait; None where it did not say.
        hints: ``core.limiter.ServerHints`` of the reply, for flow control; None where there was no reply.
    """

    retry_after_s: float | None
    hints: object | None

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, hints: object | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s, hints=hints)


class UpstreamUnavailableError(TransientError):
    """The server is not there, too slow, or answers 5xx.

    Args:
        message: What happened, bounded.
        status: HTTP status; None where no reply came.
        retry_after_s: Seconds that the server asked to wait; None where it did not say.
        hints: ``core.limiter.ServerHints`` of the reply, for flow control; None where there was no reply.
    """

    status: int | None
    retry_after_s: float | None
    hints: object | None

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        hints: object | None = None,
    ) -> None:
        super().__init__(message, status=status, retry_after_s=retry_after_s, hints=hints)


class UpstreamTimeoutError(UpstreamUnavailableError):
    """No whole answer within the request's time limit."""


class QueueFullError(TransientError):
    """As many jobs wait as may wait.

    Args:
        message: The bound, and what to do.
        retry_after_s: When to try again, seconds.
    """

    retry_after_s: float

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class StoreUnavailableError(TransientError):
    """The database or a disk is away, full or restarting."""


class OutcomeUnknownError(EraError):
    """Something was sent, but whether it took effect is not known."""


class BudgetExceededError(EraError):
    """A limit on tokens or money that the user set is reached; everything done so far is kept.

    Args:
        message: The bound, what was spent, and what to do.
        bound_tokens: Tokens that the run might spend.
        spent_tokens: Tokens that it spent.
    """

    bound_tokens: float
    spent_tokens: float

    def __init__(self, message: str, *, bound_tokens: float, spent_tokens: float) -> None:
        super().__init__(message, bound_tokens=bound_tokens, spent_tokens=spent_tokens)


class ConfigurationError(EraError):
    """A person must mend a setting, key, model or permission; the message says which and how."""


class AuthenticationError(ConfigurationError):
    """The server refuses the key (401, 403)."""


class ModelNotFoundError(ConfigurationError):
    """The server does not have the model, or the local model is not fetched yet."""


class QuotaExhaustedError(ConfigurationError):
    """The account has no quota left (429 ``insufficient_quota``)."""
