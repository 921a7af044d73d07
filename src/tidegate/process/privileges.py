"""Another user for the workers: `--user` and `--group`, once the low ports are bound.

Names are looked up before anything is forked, so that a mistake ends the start with one message.
The change is made in each worker, for good, and checked: a process that only seems to have left
root behind is worse than one that says it is root.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from tidegate.errors import ConfigurationError

log = logging.getLogger("tidegate")

_LARGEST = 2**32 - 2  # one more is -1: "leave it as it is"
_CAPABILITIES = "/proc/self/status"
_CAP_KILL = 5  # capabilities(7)


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group to become."""

    uid: int
    gid: int
    name: str | None  # None: a number without an entry, hence without further groups
    home: str | None  # None: the user stays who it was, only the group is another

    def assume(self) -> None:
        """Become that user, for good, or raise ConfigurationError.

        HOME, USER and LOGNAME in `os.environ` become those of the new user, as people expect of a
        daemon. After an error the process is neither the one nor the other: it has to end.
        """
        if os.geteuid() == 0:
            try:
                self._change()
            except OSError as error:
                raise ConfigurationError(
                    f"Cannot become {self}: {error.strerror or error}.",
                    "In a container this needs the capabilities SETUID and SETGID, "
                    "and the user has to be mapped into it.",
                ) from error
            self._check()
        else:
            self._require_ourselves()
        if self.home is not None:
            os.environ["HOME"] = self.home
            os.environ["USER"] = os.environ["LOGNAME"] = self.name or str(self.uid)

    def _change(self) -> None:
        # The user last: nobody but root may change groups.
        if self.name is None:
            os.setgroups([self.gid])
        else:
            os.initgroups(self.name, self.gid)
        os.setgid(self.gid)
        os.setuid(self.uid)  # as root: the real, the effective and the saved one

    def _check(self) -> None:
        now = {os.getuid(), os.geteuid()}, {os.getgid(), os.getegid()}
        if now != ({self.uid}, {self.gid}) or (self.uid != 0 and _root_again()):
            raise ConfigurationError(
                f"Became {self}, but the rights of root could be got back.",
                "Start without secure bits and kept capabilities (setpriv --dump shows them), "
                "or as that user in the first place.",
            )

    def _require_ourselves(self) -> None:
        if (self.uid, self.gid) != (os.geteuid(), os.getegid()):
            raise ConfigurationError(
                f"Cannot become {self}: only root may change its user or group, "
                f"and this is user {os.geteuid()}.",
                "Start as root, or leave out --user and --group and start as that user "
                "(User= and Group= in a systemd unit).",
            )

    def __str__(self) -> str:
        return f"user {self.name or self.uid} (uid {self.uid}, gid {self.gid})"


def resolve(user: str | None, group: str | None) -> Identity | None:
    """The identity that names or numbers stand for; None where neither is given.

    The group is the user's own unless it is given. Raises ConfigurationError for those that are
    unknown, and for another user than the present one where we are not root.
    """
    if user is None and group is None:
        return None
    if os.name != "posix":
        raise ConfigurationError("--user and --group are not for this system.", "Leave them out.")
    identity = _look_up(user, group)
    if os.geteuid() != 0:
        identity._require_ourselves()
    elif identity.uid != 0 and not _may_signal(_CAPABILITIES):
        log.warning(
            "Root may not signal the processes of others here (CAP_KILL is missing): a worker that "
            "hangs cannot be ended. Give the capability KILL along with SETUID and SETGID."
        )
    return identity


def _may_signal(path: str) -> bool:
    """By the effective capabilities of this process, where the system tells them (Linux)."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            held = next(line.split()[1] for line in file if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return True
    return bool(int(held, 16) >> _CAP_KILL & 1)


def _look_up(user: str | None, group: str | None) -> Identity:
    uid, name, own_group, home = _user(str(os.geteuid()) if user is None else user)
    if group is not None:
        gid = _group(group)
    elif own_group is not None:
        gid = own_group
    else:
        raise ConfigurationError(
            f"--user {user}: the number has no entry in the user database, hence no group.",
            f"Say which group with --group, for example --group {user}.",
        )
    return Identity(uid, gid, name, None if user is None else home)


def _user(user: str) -> tuple[int, str | None, int | None, str]:
    """Number, name, group and home; a number need not have the others."""
    import pwd

    number = _number(user)
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        if number is None:
            raise ConfigurationError(
                f"--user {user}: there is no such user.",
                "`getent passwd` lists the users of this machine; a container has its own. "
                "A number will do as well.",
            ) from None
        try:
            entry = pwd.getpwuid(number)
        except KeyError:
            return number, None, None, "/"
    return entry.pw_uid, entry.pw_name, entry.pw_gid, entry.pw_dir


def _group(group: str) -> int:
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        number = _number(group)
        if number is None:
            raise ConfigurationError(
                f"--group {group}: there is no such group.",
                "`getent group` lists the groups of this machine; a container has its own. "
                "A number will do as well.",
            ) from None
        return number


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LARGEST:
        return int(text)
    return None


def _root_again() -> bool:
    """Whether root can be got back; if so, it has been."""
    for become in (os.setuid, os.seteuid):
        try:
            become(0)
        except OSError:
            continue
        return True
    return False
