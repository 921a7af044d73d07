"""From a configuration to a supervisor, and from a birth to what a process was born for.

The supervisor's process never comes past `run()` with the application in memory. In its children
the same call returns a `Birth`: by then nothing of the supervisor is on the stack, and the process
goes on here as a worker, an importer or a watcher, and ends as any program does.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from tidegate.asgi.lifespan import LifespanFailed
from tidegate.config import Config
from tidegate.errors import ConfigurationError
from tidegate.hosting import AccessLogs, announce, facts_of, find, loop_factory, start
from tidegate.net.listener import Listener
from tidegate.net.sockets import Sockets
from tidegate.observe.logs import set_label, set_up_again
from tidegate.process.births import Birth, Role, deaf_to_terminal, release_signals
from tidegate.process.keys import Keys
from tidegate.process.last_words import last_words
from tidegate.process.pid_file import PidFile
from tidegate.process.post import Post
from tidegate.process.privileges import Identity, resolve
from tidegate.process.processors import usable_processors
from tidegate.process.signals import Inbox
from tidegate.process.supervisor import HANDLED, Supervisor
from tidegate.process.upgrade import LISTENERS, Upgrade
from tidegate.serving.worker import Worker

if TYPE_CHECKING:
    from tidegate.discover import Found
    from tidegate.process.reloading import Reloading

log = logging.getLogger("tidegate")

NOT_STARTED = 3  # the exit code of a worker that has said itself why


def supervise(config: Config, *, on_started: Callable[[], None] | None = None) -> int:
    """Serve with workers until a signal ends it; the exit status for the command."""
    # from before there is anything to leave behind until nothing is: no signal just ends us
    with Inbox(HANDLED) as inbox:
        house = _House(config, on_started, inbox)
        try:
            outcome = house.supervisor.run()
        finally:
            house.close()
    if isinstance(outcome, int):
        return outcome
    return _end_process(_code_of(house, outcome), in_order=house.is_worker)


def _code_of(house: _House, birth: Birth) -> int:
    """In a child: be what it was forked for; the exit status."""
    try:
        return house.become(birth)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1


def _forget_exit_functions() -> None:
    """What a script has registered before it called us is to run once, in its own process: a
    temporary folder of its would be removed by the first worker that leaves."""
    atexit._clear()
    finalize: Any = weakref.finalize
    for named in list(finalize._registry):
        named.atexit = False
    atexit.register(finalize._exitfunc)
    if pools := sys.modules.get("multiprocessing.util"):
        atexit.register(pools._exit_function)


def _end_process(code: int, *, in_order: bool) -> NoReturn:
    """End a child here. What its caller goes on to do is for the supervisor's process alone: a
    script that called `tidegate.run` must not be continued in each of them."""
    if in_order:
        with contextlib.suppress(Exception):
            threading._shutdown()  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
    last_words()
    os._exit(code)


class _House:
    """What the supervisor's process has opened, and its children find there."""

    def __init__(self, config: Config, on_started: Callable[[], None] | None, inbox: Inbox) -> None:
        self._config = config
        self._on_started = on_started
        self._folder = _start_folder()
        self._owner = os.getpid()
        self.is_worker = False  # this process; else it is a supervisor, or serves one
        self._assumed = False  # the user that serves, in this process
        self._upgrade = upgrade = Upgrade(os.environ, self._folder)
        for note in config.notes():
            log.info("%s", note)
        inherited = [Listener.inherit(line) for line in os.environ.pop(LISTENERS, "").splitlines()]
        self._identity = resolve(config.user, config.group)
        self._keys = Keys(config, handed=self._identity is not None)
        self._reloading = _reloading(config)
        self._pid_file = PidFile(config.pid_file) if config.pid_file else None
        if self._pid_file is not None and not upgrade.taking_over:
            self._pid_file.write()
        try:
            self._sockets = Sockets(config, inherited)
            if self._identity is not None:
                _hand_over(self._identity, self._sockets.all, config.access_log_file)
        except BaseException:
            self._remove_pid_file()
            raise
        if config.umask is not None:
            os.umask(config.umask)
        self.supervisor = Supervisor(
            config,
            self._sockets,
            config.workers or usable_processors(),
            log,
            inbox=inbox,
            upgrade=upgrade,
            reloading=self._reloading,
            keys=self._keys,
            owner=self,
        )

    def on_ready(self, facts: dict[str, Any]) -> None:
        """The first worker serves: say what runs, and where."""
        for note in facts["notes"]:
            log.info("%s", note)
        announce(self._config, facts, self._sockets)
        if self._on_started is not None:
            self._on_started()

    def on_complete(self) -> None:
        """Name this process as the server's; whose place it takes does so until now."""
        if self._pid_file is not None:
            try:
                self._pid_file.write(taking_over=self._upgrade.taking_over)
            except ConfigurationError as error:  # it was writable at the start
                log.error("%s", error)
        self._sockets.take_over()

    def reopen_logs(self) -> None:
        """Begin new log files, whose owner is the one who writes."""
        from tidegate.observe import logs

        identity = self._identity if os.geteuid() == 0 else None
        if identity is not None:
            _hand_over(identity, (), self._config.access_log_file)
        logs.reopen(None if identity is None else (identity.uid, identity.gid))

    def close(self) -> None:
        """In the supervisor's process, at its end. Nothing here is its children's to remove."""
        if os.getpid() == self._owner:
            self._sockets.close()
            self._remove_pid_file()

    def _remove_pid_file(self) -> None:
        if self._pid_file is not None:
            self._pid_file.remove()

    # ------------------------------------------------------------------------ in a child

    def become(self, birth: Birth) -> int:
        """Be what this process was forked for; its exit status."""
        _forget_exit_functions()
        self._sockets.close_dropped()
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            os.environ.pop(name, None)  # the supervisor speaks to systemd, nobody else
        with contextlib.suppress(OSError):
            os.chdir(self._folder)  # by its name: a link may lead to a new release by now
        if birth.role is Role.WATCHER:
            return self._watch(birth)
        if birth.role is Role.IMPORTER:
            return self._import(birth)
        if birth.role is Role.WARMER:
            return self._warm(birth)
        return self._work(birth, None)

    def _import(self, birth: Birth) -> int:
        deaf_to_terminal()
        release_signals()

        def failed(**said: Any) -> None:
            birth.channel.send(f"failed {json.dumps(said)}")

        found = self._find(failed)
        if found is None:
            return NOT_STARTED
        return self._bear(birth, found)

    def _bear(self, birth: Birth, found: Found | None) -> int:
        """Fork workers until the supervisor says so; in one of them: be it."""
        from tidegate.process.importer import ImporterLoop

        board = self.supervisor.board
        born = ImporterLoop(birth.channel, board, self._sockets.all, self._keys).run()
        return 0 if born is None else self._work(born, found)

    def _warm(self, birth: Birth) -> int:
        from tidegate.process.warming import warm

        deaf_to_terminal()
        release_signals()
        assert self._reloading is not None
        try:
            self._renew_logs()
            self._assume()
        except ConfigurationError:  # the worker that is not warmed says so
            return NOT_STARTED
        failed = warm(self._reloading.warmth.names)
        if failed:
            birth.channel.send(f"unfit {json.dumps(failed)}")
            return NOT_STARTED
        return self._bear(birth, None)

    def _watch(self, birth: Birth) -> int:
        from tidegate.process.reloading import watch_for

        self._sockets.close()
        deaf_to_terminal()
        release_signals()
        try:
            watch_for(self._config, birth.channel)
        except ConfigurationError as error:
            birth.channel.send(f"failed {json.dumps({'text': str(error)})}")
            return NOT_STARTED
        return 0

    def _work(self, birth: Birth, found: Found | None) -> int:
        self.is_worker = True
        config = self._config
        set_label(str(os.getpid()))
        deaf_to_terminal()
        post = Post(birth, config, self._keys)
        release_signals()
        found = found or self._find(post.failed)
        if found is None:
            return NOT_STARTED
        try:
            with asyncio.Runner(loop_factory=loop_factory(config.loop)) as runner:
                return runner.run(self._serve(post, found))
        except ConfigurationError as error:
            post.failed(text=str(error), final=True)
        except Exception:
            post.failed(text=f"A worker failed.\n{traceback.format_exc()}", final=False)
        return NOT_STARTED

    async def _serve(self, post: Post, found: Found) -> int:
        config = self._config
        access = AccessLogs(config)
        worker = Worker(
            config,
            found.application,
            self._sockets.serving,
            log,
            asgi2=found.interface == "asgi2",
            access=access.log,
            health=self._sockets.health,
            post=post,
            tls_files=self._keys.files,
        )
        post.attach(worker, access.reopen)
        try:
            if not await start(worker):
                return 0
            post.ready(facts_of(worker, found))
            if self._reloading is not None:
                self._tell_modules(post, self._reloading)
            if self._on_started is not None:
                self._on_started()
            return 0 if await worker.run() else 1
        except LifespanFailed as error:  # what it waits for may be there in a second
            post.failed(text=str(error), final=False)
            return NOT_STARTED
        finally:
            self._sockets.close()
            await worker.close()
            access.close()
            post.detach()

    def _find(self, failed: Callable[..., None]) -> Found | None:
        """As the user that serves, the application; None once it is said why there is none."""
        try:
            self._renew_logs()
            self._assume()
            return find(self._config)
        except ConfigurationError as error:
            failed(text=str(error), final=True)
        except Exception:
            failed(text=f"The application cannot be loaded.\n{traceback.format_exc()}", final=True)
        return None

    def _renew_logs(self) -> None:
        """Heed a log configuration that has changed since the start.

        Before there is an application, whose loggers it would silence, and as who we were at the
        start: the folder of a log file may be root's.
        """
        log_config = self._config.log_config
        if log_config is not None and not self._assumed:
            set_up_again(log_config)

    def _assume(self) -> None:
        """Become the user that serves, where that is another one."""
        if self._identity is None or os.geteuid() != 0:
            return
        needed = [path for path in (os.__file__, __file__) if os.access(path, os.R_OK)]
        self._identity.assume()
        self._assumed = True
        for path in needed:  # much of both is imported when it is needed first
            if not os.access(path, os.R_OK):
                raise ConfigurationError(
                    f"Cannot serve as {self._identity}: it may not read {os.path.dirname(path)}.",
                    "Install Python, Tidegate and the application where that user may read them: "
                    "below /opt or /usr/local, say, but not in the home of root.",
                )

    def _tell_modules(self, post: Post, reloading: Reloading) -> None:
        from tidegate.process.warming import foreign_modules

        post.tell_modules(foreign_modules(reloading.loaded))


def _reloading(config: Config) -> Reloading | None:
    if not config.reload:
        return None
    from tidegate.process.reloading import Reloading

    return Reloading(config, log)


def _hand_over(identity: Identity, listeners: Sequence[Listener], log_file: str | None) -> None:
    """What workers need and root has made, or would have to."""
    from tidegate.observe.logs import file_handlers

    if os.geteuid() != 0:
        return
    # By descriptor, or not through links: the folders may belong to that user, who could lead us
    # to any other file.
    for listener in listeners:
        if listener.made_path is not None:
            os.chown(listener.made_path, identity.uid, identity.gid, follow_symlinks=False)
    for handler in file_handlers():
        if handler.stream is not None:
            os.fchown(handler.stream.fileno(), identity.uid, identity.gid)
    if log_file is not None and log_file != "-":
        try:
            descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        except OSError:
            return  # it is there, and has the owner it was given; or the worker will say why not
        os.fchown(descriptor, identity.uid, identity.gid)
        os.close(descriptor)


def _start_folder() -> str:
    """The working directory by the name it was entered by, where that is known: a link such as
    /srv/current leads to the next release one day, and its target does not."""
    named = os.environ.get("PWD", "")
    try:
        here = os.getcwd()
        return named if named and os.path.samefile(named, here) else here
    except OSError:
        return os.getcwd()
