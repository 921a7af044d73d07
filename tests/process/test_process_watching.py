"""What `--reload` watches: the filter as a table, and watchers that run, told by the kernel or not.

That something is *not* reported is shown without waiting: it is written first, then a file that
counts, and the first report names only the latter.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.programs import REPOSITORY, run

from tidegate.config import Config
from tidegate.errors import ConfigurationError
from tidegate.process import watching
from tidegate.process.watch_filter import WatchFilter, WatchTerms, look, watch_terms
from tidegate.process.watching import Batch, check, syntax_errors, watch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="watchers are forked")

PATIENCE = 60  # s; a bound, not an expectation


# -- the filter -----------------------------------------------------------------------------------

DEFAULT = WatchTerms()


def terms(includes="", excludes=""):
    return WatchTerms(includes=tuple(includes.split()), excludes=tuple(excludes.split()))


LEFT = ".hidden.py .#main.py ~main.py main.py~ main.py___jb_tmp___ main.pyc .main.py.swp 4913"

# terms, the files that count, those that do not
FILES = [
    (DEFAULT, "main.py app/views.py", f"index.html PY {LEFT}"),
    (terms("*.html"), "index.html main.py", f"index.htm .#index.html {LEFT}"),
    (terms("*"), "data.csv main.py", LEFT),
    (terms(".env"), ".env", ".env.local .hidden.py"),
    (terms(".env*"), ".env .env.local", ".hidden.py"),
    (terms(".*"), ".flaskenv .hidden.py", "main.pyc"),
    (terms("settings.toml"), "settings.toml", "other.toml"),
    (terms("*.html", "index.html"), "a.html", "index.html"),
    (terms("index.html", "*.html"), "main.py", "index.html"),
    (terms(".env", ".*"), "main.py", ".env"),
    (terms("", "*.py"), "", "main.py"),
    (terms("", "test_*.py"), "main.py", "test_main.py"),
    (terms("in/*.txt"), "in/a.txt site/in/a.txt", "in/deep/a.txt a.txt"),
    (terms("./in/*.txt"), "in/a.txt", "in/deep/a.txt a.txt"),
    (terms("in/**/*.txt"), "in/a.txt in/very/deep/a.txt", "a.txt in/a.csv"),
    (terms("in/**"), "in/a.txt in/very/deep/a.txt", "a.txt"),
    (terms("", "app/gen_[0-9].py"), "app/gen_x.py gen_1.py", "app/gen_1.py"),
]


@pytest.mark.parametrize(("chosen", "counting", "others"), FILES)
def test_which_files_count(chosen, counting, others, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask = WatchFilter(chosen).counts
    every = f"{counting} {others}".split()
    found = [path for path in every if ask(str(tmp_path / path), os.path.basename(path))]
    assert found == counting.split()


def test_a_pattern_may_be_absolute_or_lead_upwards(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for pattern in (f"{tmp_path}/there/*.txt", "../there/*.txt"):
        chosen = WatchFilter(terms(pattern))
        assert chosen.counts(str(tmp_path / "there/a.txt"), "a.txt")
        assert not chosen.counts(str(tmp_path / "x" / str(tmp_path)[1:] / "there/a.txt"), "a.txt")


@pytest.mark.parametrize(
    ("chosen", "entered", "others"),
    [
        (DEFAULT, "app app/deep", "__pycache__ app/__pycache__ node_modules .git .mypy_cache"),
        (terms(".*"), "app", ".git"),
        (terms("*"), "app", ".venv"),
        (terms("", "migrations"), "app/migrations2", "app/migrations"),
        (terms("", "*/gen*"), "app", "app/generated"),
    ],
)
def test_which_folders_are_entered(chosen, entered, others, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask = WatchFilter(chosen).enters
    every = f"{entered} {others}".split()
    found = [path for path in every if ask(str(tmp_path / path), os.path.basename(path))]
    assert found == entered.split()


def write(path: Path, text: str = "x = 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def seen(root: Path, chosen: WatchTerms):
    """Folders and files in view, as seen from the root."""
    view = look(WatchFilter(chosen))
    names = [os.path.relpath(path, root) for path in (*view.watched, *view.files)]
    return sorted(names)


def test_what_is_not_code_is_not_watched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (
        *("main.py", "app/views.py", "app/__pycache__/views.py", "app/notes.txt"),
        *(".git/hooks/hook.py", "node_modules/gyp/gyp.py", ".tox/py/x.py"),
        *("env/pyvenv.cfg", "env/lib/site.py", "conda/conda-meta/history", "conda/lib/x.py"),
    ):
        write(tmp_path / path)
    assert seen(tmp_path, DEFAULT) == [".", "app", "app/views.py", "main.py"]


def test_a_root_is_watched_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / ".hidden/mine/a.py")
    write(tmp_path / "main.py")
    inner = WatchTerms(folders=(".", ".hidden/mine"))
    assert seen(tmp_path, inner) == [".", ".hidden/mine", ".hidden/mine/a.py", "main.py"]


def test_a_root_may_be_an_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path / "pyvenv.cfg").parent)
    write(tmp_path / "code/a.py")
    assert seen(tmp_path, DEFAULT) == [".", "code", "code/a.py"]


def test_folders_that_overlap_are_watched_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "app/views.py")
    (tmp_path / "again").symlink_to("app")
    several = WatchTerms(folders=("app", ".", str(tmp_path / "app"), "again"))
    assert seen(tmp_path, several) == seen(tmp_path, DEFAULT) == [".", "app", "app/views.py"]


def test_links_are_followed_but_not_in_circles_nor_up(tmp_path, monkeypatch):
    root = tmp_path / "root"
    monkeypatch.chdir(write(root / "main.py").parent)
    write(tmp_path / "shared/a.py")
    (root / "shared").symlink_to(tmp_path / "shared")
    (tmp_path / "shared/back").symlink_to(tmp_path / "shared")
    (root / "up").symlink_to(tmp_path)
    (root / "top").symlink_to("/")
    assert seen(root, DEFAULT) == [".", "main.py", "shared", "shared/a.py"]


def test_a_folder_can_be_included_and_excluded(tmp_path, monkeypatch):
    root = tmp_path / "root"
    monkeypatch.chdir(write(root / "main.py").parent)
    for path in ("root/tests/t.py", "root/app/tests/t.py", "more/m.py", "more/m.txt"):
        write(tmp_path / path)
    chosen = terms("../more", "tests/")
    expected = [".", "../more", "../more/m.py", "app", "app/tests", "app/tests/t.py", "main.py"]
    assert seen(root, chosen) == expected


def test_one_file_counts_wherever_it_lies(tmp_path, monkeypatch):
    root = tmp_path / "root"
    monkeypatch.chdir(write(root / "main.py").parent)
    write(tmp_path / "etc/prod.env")
    write(tmp_path / "etc/other.py")
    write(root / ".env")
    expected = [".", "../etc", "../etc/prod.env", ".env", "main.py"]
    assert seen(root, WatchTerms(includes=(".env",), files=("../etc/prod.env",))) == expected


def test_a_folder_that_does_not_exist_is_a_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="--reload-dir srv does not exist") as caught:
        check(WatchTerms(folders=("srv",)))
    assert str(tmp_path) in caught.value.hint
    write(tmp_path / "main.py")
    with pytest.raises(ConfigurationError, match=r"main\.py is a file") as caught:
        check(WatchTerms(folders=("main.py",)))
    assert "--reload-include main.py" in caught.value.hint


def test_to_exclude_everything_is_a_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="nothing to watch"):
        check(terms("", "."))


def test_terms_come_from_the_configuration():
    options = {"include": ("*.html",), "exclude": ("gen",), "dir": ("src",), "delay": 0.5}
    config = Config(app="main:app", **{f"reload_{name}": it for name, it in options.items()})
    expected = WatchTerms(("src",), ("*.html",), ("gen",), (".env",), 0.5)
    assert watch_terms(config, [".env"]) == expected


# -- what can be in the way -----------------------------------------------------------------------


def test_watchfiles_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigurationError, match="not installed") as caught:
        check(DEFAULT)
    assert "pip install 'tidegate[reload]'" in caught.value.hint


# As watchfiles 1.3 words them.
NO_WATCHES = OSError('OS file watch limit reached. about ["/a"] (Error { kind: MaxFilesWatch })')
NO_INSTANCES = RuntimeError("Error creating recommended watcher: Too many open files (os error 24)")


@pytest.mark.parametrize(
    ("error", "said", "setting"),
    [
        (NO_WATCHES, "watch 1 folders", "max_user_watches"),
        (NO_INSTANCES, "too many programs", "max_user_instances"),
        (OSError("odd"), "odd", "WATCHFILES_FORCE_POLLING"),
        (FileNotFoundError("gone again"), "gone again", "--reload-exclude"),
    ],
)
def test_limits_are_named(error, said, setting, tmp_path, monkeypatch):
    def make(*arguments):
        raise error

    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "false")
    monkeypatch.setattr(watching, "_load_watchfiles", lambda: make)
    with ended() as ours, pytest.raises(ConfigurationError, match=said) as caught:
        watch(WatchTerms(folders=(str(tmp_path),)), print, ours)
    assert setting in caught.value.hint


class Late:
    """In watchfiles' place: while it sets up its watches, new folders appear, so many times."""

    def __init__(self, folder: Path, times: int):
        self.folder, self.times = folder, times
        self.made: list[list[str]] = []
        self.closed = 0

    def __call__(self, paths, *others):
        if len(self.made) < self.times:
            write(self.folder / f"late{len(self.made)}" / "a.py")
        self.made.append(paths)
        return self

    def watch(self, *arguments):
        return "stop"

    def close(self):
        self.closed += 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a tree is one watch")
def test_a_folder_that_appears_while_watches_are_set_up(tmp_path, monkeypatch):
    late = Late(tmp_path, 2)
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "false")
    monkeypatch.setattr(watching, "_load_watchfiles", lambda: late)
    with ended() as ours:
        watch(WatchTerms(folders=(str(tmp_path),)), print, ours)
        assert late.made[-1] == [str(tmp_path), str(tmp_path / "late0"), str(tmp_path / "late1")]
        assert late.closed == len(late.made)
        late.times = 1000
        with pytest.raises(ConfigurationError, match="never stop changing"):
            watch(WatchTerms(folders=(str(tmp_path),)), print, ours)
        assert late.closed == len(late.made) < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="inotify's limits")
@pytest.mark.parametrize("limit", ["max_inotify_watches", "max_inotify_instances"])
def test_real_limits_are_recognised(limit, tmp_path):
    """In a user namespace, which has limits of its own."""
    for name in ("a", "b", "c"):
        write(tmp_path / name / "x.py")
    few = 1 if limit.endswith("watches") else 0
    order = f'echo {few} > /proc/sys/user/{limit} && exec "$@"'
    space = ["unshare", "--user", "--map-root-user", "sh", "-c", order, "sh"]
    if shutil.which("unshare") is None or run(*space, "true").code:
        pytest.skip("no user namespaces here")
    with Watcher(tmp_path, DEFAULT, "false", before=space) as watcher:
        assert watcher.line().endswith(f"fs.inotify.{limit.replace('inotify', 'user')}")


MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /mnt/c rw,noatime - 9p drvfs rw,dirsync
31 22 0:27 / /mnt/my\040files rw - virtiofs share rw
32 31 0:28 / /mnt/my\040files/local rw shared:4 master:1 - ext4 /dev/vdb rw
33 22 0:29 / /mnt/c rw - ext4 /dev/vdc rw
""".strip().splitlines()


def test_the_file_system_of_a_folder():
    kinds = {
        "/home/me": "ext4",
        "/mnt/cd": "ext4",
        "/mnt/c/code": "ext4",
        "/mnt/my files/code": "virtiofs",
        "/mnt/my files": "virtiofs",
        "/mnt/my files/local/code": "ext4",
    }
    mounts = list(watching._mounts(MOUNTS))
    assert {path: watching._kind_of(path, mounts) for path in kinds} == kinds
    assert watching._kind_of("/mnt/c/code", mounts[:-1]) == "9p"


# -- watchers that run ----------------------------------------------------------------------------

PROGRAM = """
import json, sys
from tidegate.errors import ConfigurationError
from tidegate.process.watching import watch
from tidegate.process.watch_filter import WatchTerms

def say(*words):
    print(*words, flush=True)

try:
    watch(
        WatchTerms(**json.loads(sys.argv[1])), say, 0,
        lambda: say("ready", *sorted({"anyio", "asyncio"} & sys.modules.keys())),
    )
except ConfigurationError as error:
    words = error.hint.replace("=", " ").split()
    say(*[word for word in words if word.startswith("fs.")])
say("over")
"""


@contextlib.contextmanager
def ended():
    """A descriptor whose other end is closed."""
    ours, theirs = os.pipe()
    os.close(theirs)
    try:
        yield ours
    finally:
        os.close(ours)


class Watcher:
    """A watcher in a process of its own, its standard input the pipe that we hold."""

    def __init__(self, folder: Path, chosen: WatchTerms, polls: str, before=()):
        fields = {name: getattr(chosen, name) for name in WatchTerms.__slots__} | {"delay": 0.01}
        self.process = subprocess.Popen(
            [*before, sys.executable, "-c", PROGRAM, json.dumps(fields)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY / "src"),
                "WATCHFILES_FORCE_POLLING": polls,
                "WATCHFILES_POLL_DELAY_MS": "20",
            },
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("END")

    def line(self) -> str:
        return self._lines.get(timeout=PATIENCE)

    def until(self, *wanted: str) -> set[str]:
        """All that was named up to these paths."""
        named: set[str] = set()
        while not named.issuperset(wanted):
            line = self.line()
            assert line not in {"over", "END"}, f"ended before it named {wanted}"
            named.update(line.split(", "))
        return named

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(params=["false", "true"], ids=["kernel", "looks"])
def watching_in(request, tmp_path):
    """Starts a watcher in `tmp_path/root`, and gives it and that folder once it is ready."""
    with contextlib.ExitStack() as stack:

        def start(*files: str, chosen: WatchTerms = DEFAULT):
            for file in ("root/main.py", *files):
                write(tmp_path / file)
            root = tmp_path / "root"
            watcher = stack.enter_context(Watcher(root, chosen, request.param))
            assert watcher.line() == "ready"  # without asyncio and anyio
            return watcher, root

        yield start


def test_a_change_is_reported(watching_in):
    watcher, root = watching_in()
    write(root / "main.py", "x = 2  # longer\n")
    assert watcher.line() == "main.py"
    write(root / "main.py", "x = 3  # and longer still\n")
    assert watcher.line() == "main.py"


IGNORED = (
    ".git/a.py __pycache__/main.py node_modules/a.py .mypy_cache/new/a.py env/lib/a.py "
    "notes.txt .main.py.swp new.txt"
)


@pytest.mark.parametrize("ignored", IGNORED.split())
def test_what_does_not_count_is_not_reported(watching_in, ignored):
    folder = "root/" + os.path.dirname(ignored).removesuffix("/new")
    watcher, root = watching_in("root/env/pyvenv.cfg", "root/notes.txt", f"{folder}/there.py")
    write(root / ignored, "x = 12345\n")
    write(root / "one.py")
    assert watcher.until("one.py") == {"one.py"}


def test_new_folders_that_do_not_count(watching_in):
    watcher, root = watching_in("env/pyvenv.cfg", "env/lib/a.py", "cache/a.py")
    os.rename(root.parent / "env", root / "env")
    os.rename(root.parent / "cache", root / "__pycache__")
    write(root / "one.py")
    assert watcher.until("one.py") == {"one.py"}
    write(root / "env/lib/a.py", "x = 12345\n")
    write(root / "two.py")
    assert watcher.until("two.py") <= {"one.py", "two.py"}


def test_a_folder_becomes_an_environment(watching_in):
    watcher, root = watching_in("root/env/a.py")
    write(root / "env/pyvenv.cfg")
    write(root / "one.py")
    assert watcher.until("one.py") == {"one.py"}
    write(root / "env/a.py", "x = 12345\n")
    write(root / "two.py")
    assert watcher.until("two.py") <= {"one.py", "two.py"}


def test_other_files_count_when_included(watching_in):
    watcher, root = watching_in("root/index.html", chosen=terms("*.html", "draft*"))
    write(root / "draft.html")
    write(root / "index.html", "<p>new</p>")
    assert watcher.line() == "index.html"


def test_only_files_count_where_everything_does(watching_in):
    watcher, root = watching_in(chosen=terms("*"))
    os.mkfifo(root / "pipe")
    (root / "__pycache__").mkdir()
    (root / "empty").mkdir()
    (root / "__pycache__").rmdir()
    write(root / "data.csv")
    assert watcher.until("data.csv") == {"data.csv"}


def test_a_file_that_is_renamed_over_another(watching_in):
    watcher, root = watching_in()
    write(root / "main.py.tmp", "x = 12345\n")
    os.replace(root / "main.py.tmp", root / "main.py")
    assert watcher.line() == "main.py"


def test_a_file_that_gets_another_name(watching_in):
    watcher, root = watching_in()
    os.rename(root / "main.py", root / "other.py")
    assert watcher.until("main.py", "other.py") == {"main.py", "other.py"}


def test_a_file_that_is_deleted(watching_in):
    watcher, root = watching_in()
    (root / "main.py").unlink()
    assert watcher.line() == "main.py"


def test_a_new_folder_is_watched(watching_in):
    watcher, root = watching_in()
    write(root / "app/deep/views.py")
    assert watcher.until("app/deep/views.py") == {"app/deep/views.py"}
    write(root / "app/deep/urls.py")
    assert watcher.until("app/deep/urls.py") <= {"app/deep/urls.py", "app/deep/views.py"}


def test_a_folder_is_moved_away_and_back(watching_in):
    watcher, root = watching_in("root/app/views.py", "root/app/deep/a.py")
    os.rename(root / "app", root.parent / "app")
    both = {"app/deep/a.py", "app/views.py"}
    assert watcher.until(*both) == both
    os.rename(root.parent / "app", root / "app")
    assert watcher.until(*both) == both
    write(root / "app/deep/a.py", "x = 12345\n")
    assert watcher.line() == "app/deep/a.py"


def test_a_folder_is_replaced_by_another(watching_in):
    watcher, root = watching_in("root/app/views.py")
    shutil.rmtree(root / "app")
    write(root / "app/views.py", "x = 12345\n")
    watcher.until("app/views.py")
    write(root / "app/urls.py")
    watcher.until("app/urls.py")


def test_the_watched_folder_itself_goes_and_comes(watching_in):
    watcher, root = watching_in("code/a.py", chosen=WatchTerms(folders=("../code",)))
    code = root.parent / "code"
    shutil.rmtree(code)
    assert watcher.line() == str(code / "a.py")
    write(code / "b.py")
    watcher.until(str(code / "b.py"))


def test_a_single_file_counts(watching_in):
    watcher, root = watching_in(
        "etc/prod.env", "etc/a.py", chosen=WatchTerms(files=("../etc/prod.env",))
    )
    etc = root.parent / "etc"
    write(etc / "a.py", "x = 12345\n")
    write(etc / "new.env", "A=b\n")
    os.replace(etc / "new.env", etc / "prod.env")
    assert watcher.line() == str(etc / "prod.env")


def test_a_single_file_behind_a_link_counts(watching_in, tmp_path):
    real = write(tmp_path / "etc/prod.env")
    (tmp_path / "link.env").symlink_to(real)
    watcher, _ = watching_in(chosen=WatchTerms(files=("../link.env",)))
    write(real, "A=12345\n")
    assert str(real) in watcher.until(str(real))


def test_a_name_that_is_not_utf8(watching_in):
    watcher, root = watching_in()
    try:
        Path(os.fsdecode(bytes(root) + b"/\xff.py")).write_text("")
    except OSError:
        pytest.skip("this file system has no such names")
    assert watcher.line() == r"\udcff.py"
    write(root / "one.py")
    assert watcher.line() == "one.py"


def test_the_watcher_ends_with_its_parent(watching_in):
    watcher, root = watching_in()
    watcher.process.stdin.write("words are not its end")
    watcher.process.stdin.flush()
    (root / "main.py").unlink()  # at one stroke: what is made and then filled may be told twice
    assert watcher.line() == "main.py"
    watcher.process.stdin.close()
    assert watcher.line() == "over"
    assert watcher.process.wait(PATIENCE) == 0


def test_a_parent_that_is_gone_at_once(tmp_path):
    done = run(
        *(sys.executable, "-c", PROGRAM, json.dumps({"folders": [str(tmp_path)]})),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
    )
    assert done.text.split() == ["ready", "over"]


# -- what is said ---------------------------------------------------------------------------------


def test_a_batch_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(tmp_path / name) for name in ("a.py", "app/b.py", "c\n.py", "d.py", "e.py")]
    assert str(Batch(tuple(names[:1]))) == "a.py"
    assert str(Batch(tuple(names[:3]))) == r"a.py, app/b.py, c\n.py"
    assert str(Batch(tuple(names))) == r"a.py, app/b.py, c\n.py and 2 more"
    assert str(Batch(("/elsewhere/é.py",))) == "/elsewhere/é.py"
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert str(Batch((str(gone / "a.py"),))) == str(gone / "a.py")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"x = 1\n", None),
        (b"x = 1\ny = (\n", "x.py:2: SyntaxError: '(' was never closed"),
        (b"x = 1\nreturn x\n", "x.py:2: SyntaxError: 'return' outside function"),
        (b"def f():\npass\n", "x.py:2: IndentationError: expected an indented block"),
        (b"x = '\xff'\n", "x.py:1: SyntaxError: (unicode error) 'utf-8' codec"),
        (b"x = \0\n", "x.py:1: SyntaxError: source code"),
        (b"# coding: latin-1\nx = '\xff'\n", None),
        (b"x = '\\d'  # only a warning\n", None),
        (b"print >>f\nasync = 1\n", "x.py:2: SyntaxError: invalid syntax"),
        (b"raise SystemExit  # never run\n", None),
        (b"def f() -> unknown: ...\nx: (yield)\n", "x.py:2: SyntaxError: 'yield' outside function"),
    ],
)
def test_syntax_errors(source, error, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").write_bytes(source)
    found = syntax_errors([str(tmp_path / "x.py")])
    assert len(found) == (error is not None)
    assert all(each.startswith(error) for each in found)
    assert not recwarn.list


def test_syntax_errors_are_of_python_files_that_are_there(tmp_path):
    broken = write(tmp_path / "x.html", "(")
    (tmp_path / "folder.py").mkdir()
    assert (
        syntax_errors([str(broken), str(tmp_path / "gone.py"), str(tmp_path / "folder.py")]) == []
    )
