"""What keeps an embedded server from running, with what to do about it."""

from __future__ import annotations

from gstd.kernel.errors import GstdError


class EmbeddedError(GstdError):
    """An embedded server cannot run."""

    code = "embedded_unavailable"
    status = 503
    hint = "Set GSTD_DATABASE_URL and GSTD_VALKEY_URL to servers of your own."


class StateInUseError(EmbeddedError):
    """Another process already runs on this state folder."""

    code = "state_in_use"
    status = 409
    hint = "Stop the other `gstd up`, or start this one with another state folder."


class StateOwnerError(EmbeddedError):
    """The state folder belongs to another user."""

    code = "state_owner"
    status = 403
    hint = "Run as the user who owns the state folder, or choose another folder."


class PasswordLostError(EmbeddedError):
    """The cluster is there, but the file with its password is not."""

    code = "password_lost"
    status = 500
    hint = "Restore postgres/password in the state folder from a backup."


class BinariesMissingError(EmbeddedError):
    """The server's binaries are not on this machine."""

    code = "binaries_missing"
    hint = "Install the package named above, or set the URL of a server of your own."


class BinariesUnreachableError(EmbeddedError):
    """The account that must run the server cannot reach its binaries."""

    code = "binaries_unreachable"
    hint = "Install GSTD below a folder that everyone may enter, such as /opt, or run as a user."


class RootNotSupportedError(EmbeddedError):
    """Root cannot run PostgreSQL, and here is nobody else to run it."""

    code = "root_not_supported"
    hint = "Run GSTD as an ordinary user."


class VersionMismatchError(EmbeddedError):
    """The cluster was made by another major version of PostgreSQL."""

    code = "postgres_version_mismatch"
    status = 409
    hint = "Start with the old binaries, dump with `pg_dumpall`, restore into a new state folder."


class SocketFolderError(EmbeddedError):
    """The short folder for the socket exists and belongs to somebody else."""

    code = "socket_folder_taken"
    hint = "Remove that folder, or use a state folder with a shorter path."


class StartFailedError(EmbeddedError):
    """A process did not become ready."""

    code = "start_failed"
    hint = "The log file in the state folder says why."
