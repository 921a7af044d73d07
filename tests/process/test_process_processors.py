"""`--workers auto`: the scheduler's mask and the quotas of cgroups, on trees made for the test."""

from __future__ import annotations

import os
import sys

import pytest

from tidegate.process.processors import cgroup_folders, usable_processors


@pytest.fixture
def of_many(monkeypatch):
    """A machine of 64 processors, all open to us."""
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)


class Tree:
    """A /proc and a /sys/fs/cgroup of our own."""

    def __init__(self, folder):
        self.proc = folder / "proc"
        self.cgroups = folder / "cgroup"

    def ours(self, text):
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self" / "cgroup").write_text(text)

    def put(self, path, text):
        file = self.cgroups / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def count(self):
        return usable_processors(proc=str(self.proc), cgroups=str(self.cgroups))

    def folders(self, controller):
        found = cgroup_folders(controller, proc=str(self.proc), cgroups=str(self.cgroups))
        return [os.path.relpath(each, self.cgroups) for each in found]


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_without_proc_and_sys_the_scheduler_decides(tree, of_many):
    assert tree.count() == 64


@pytest.mark.parametrize(
    ("quota", "count"),
    [
        ("max 100000", 64),
        ("400000 100000", 4),
        ("150000 100000", 2),
        ("100001 100000", 2),
        ("50000 100000", 1),
        ("25000 50000", 1),
        ("6400000 50000", 64),  # a quota never gives more than there are
        ("", 64),
        ("nonsense", 64),
        ("100000 0", 64),
    ],
)
def test_a_quota_of_version_2(tree, of_many, quota, count):
    tree.ours("0::/app.slice/web.service\n")
    tree.put("app.slice/web.service/cpu.max", quota + "\n")
    assert tree.count() == count


@pytest.mark.parametrize(("ours", "above", "root"), [(3, 5, 7), (5, 3, 7), (7, 5, 3)])
def test_the_smallest_up_to_the_root_counts(tree, of_many, ours, above, root):
    tree.ours("0::/app.slice/web.service\n")
    tree.put("app.slice/web.service/cpu.max", f"{ours}00000 100000\n")
    tree.put("app.slice/cpu.max", f"{above}00000 100000\n")
    tree.put("cpu.max", f"{root}00000 100000\n")
    assert tree.count() == 3


def test_another_cgroup_is_not_ours(tree, of_many):
    tree.ours("0::/web.service\n")
    tree.put("web.service/cpu.max", "max 100000\n")
    tree.put("other.service/cpu.max", "100000 100000\n")
    assert tree.count() == 64


@pytest.mark.parametrize(
    "path", ["/", "/docker/0123abcd", "/../other", "/docker/0123abcd (deleted)"]
)
def test_a_path_that_is_not_below_the_mount_stands_for_its_root(tree, of_many, path):
    tree.ours(f"0::{path}\n")
    tree.put("cpu.max", "200000 100000\n")
    assert tree.count() == 2


def test_a_path_that_leads_out_of_the_mount_is_not_followed(tree, of_many):
    tree.ours("0::/../other\n")
    tree.put("cpu.max", "max 100000\n")
    tree.put("../other/cpu.max", "100000 100000\n")
    assert tree.count() == 64


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(
    ("quota", "count"), [("-1", 64), ("250000", 3), ("100000", 1), ("10000", 1), ("", 64)]
)
def test_a_quota_of_version_1(tree, of_many, mount, quota, count):
    tree.ours("5:memory:/web\n4:cpu,cpuacct:/web\n1:name=systemd:/web\n")
    tree.put(f"{mount}/web/cpu.cfs_quota_us", quota + "\n")
    tree.put(f"{mount}/web/cpu.cfs_period_us", "100000\n")
    assert tree.count() == count


def test_version_1_is_walked_upwards_too(tree, of_many):
    tree.ours("4:cpu,cpuacct:/a/b\n")
    tree.put("cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n")
    tree.put("cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n")
    tree.put("cpu,cpuacct/a/cpu.cfs_quota_us", "200000\n")
    tree.put("cpu,cpuacct/a/cpu.cfs_period_us", "100000\n")
    assert tree.count() == 2


def test_in_a_container_of_version_1_the_mount_is_our_own(tree, of_many):
    tree.ours("4:cpu,cpuacct:/docker/0123abcd\n")
    tree.put("cpu,cpuacct/cpu.cfs_quota_us", "300000\n")
    tree.put("cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert tree.count() == 3


def test_in_such_a_container_a_cgroup_of_the_same_name_is_another(tree, of_many):
    tree.ours("0::/docker/0123abcd\n")
    tree.put("cpu.max", "300000 100000\n")
    tree.put("docker/cpu.max", "100000 100000\n")  # Docker within Docker
    assert tree.count() == 3


def test_both_versions_on_one_machine(tree):
    tree.ours("4:cpu,cpuacct:/old\n3:memory:/mem\n0::/new:with:colons\n")
    for path in ("cpu,cpuacct/old/x", "memory/mem/x", "unified/new:with:colons/x"):
        tree.put(path, "")
    unified = ["unified/new:with:colons", "unified"]
    assert tree.folders("cpu") == ["cpu,cpuacct/old", "cpu,cpuacct", *unified]
    assert tree.folders("memory") == ["memory/mem", "memory", *unified]


def test_there_is_always_one(tree, monkeypatch):
    monkeypatch.setattr(os, "process_cpu_count", lambda: None, raising=False)
    assert tree.count() == 1


def test_a_system_without_a_mask_says_how_many_there_are(tree, monkeypatch):
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert tree.count() == 10


@pytest.mark.skipif(sys.version_info < (3, 13), reason="os.process_cpu_count is of Python 3.13")
def test_what_python_was_told_is_heeded(tree, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(os, "process_cpu_count", lambda: 6)
    assert tree.count() == 6


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no mask on this system")
def test_the_mask_of_this_process(tree):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert tree.count() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert tree.count() == len(before)


def test_this_machine_has_at_least_one():
    assert 1 <= usable_processors() <= (os.cpu_count() or 1)
