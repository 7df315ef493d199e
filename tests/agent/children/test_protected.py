"""What decides what runs: how it is found, told by its name, and set aside."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.children import protected, sandbox
from tests.fixtures.forked import forked


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def grow(root: Path, *paths: str) -> None:
    """Empty files; folders where a path ends in a slash; links where it holds an arrow."""
    for path in paths:
        name, _, target = path.partition(" -> ")
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if target:
            place.symlink_to(target)
        elif name.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.touch()


def found(root: Path, **given: Any) -> set[str]:
    return {os.path.relpath(path, root) for path in protected.find(str(root), **given)}


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        (".git/config", True), ("a/.git", True), (".GIT/hooks/x", True), (".git./config", True), (".git /config", True),
        (".g\u200cit/config", True), (".git::$INDEX_ALLOCATION/config", True), (".\u017fprig/x", True),
        ("git~1/config", True), ("GIT~1", True), (".config/systemd/user/x.service", True), ("home/.local/bin/ls", True),
        ("sub/.envrc", True), ("venv/bin/python", True), (".vscode/tasks.json", True), ("sitecustomize.py", True),
        ("git/config", False), (".gitignore", False), (".github/x", False), (".config/app.ini", False), ("bin/x", False),
        ("systemd/x", False), ("envrc", False), ("a.git", False), (".gitattributes", False), ("Makefile", False),
        ("g\u00eft", False), ("x/.config", False), ("fish/.config", False), (".local/share", False), ("git~2", False),
    ],
)  # fmt: skip
def test_names(path: str, is_one: bool) -> None:
    assert protected.is_protected(tuple(path.split("/"))) == is_one


REPOSITORY = ("objects/", "refs/", "HEAD")


@pytest.mark.parametrize(
    ("entries", "is_one"),
    [
        (REPOSITORY, True), ((*REPOSITORY, "config", "hooks/"), True), (("HEAD", "commondir"), True),
        (("objects/", "refs/"), False), (("objects/", "HEAD"), False), (("refs/", "HEAD"), False), (("commondir",), False),
        (("commondir", "objects/", "refs/"), False), ((), False),
    ],
)  # fmt: skip
def test_what_git_takes_for_a_repository(entries: tuple[str, ...], is_one: bool, root: Path) -> None:
    grow(root, *(f"sub/{entry}" for entry in entries), *entries)
    assert protected.is_repository(str(root / "sub")) == is_one
    inside = {name for name in ("HEAD", "commondir") if name in entries} | ({"config", "hooks"} & {e.strip("/") for e in entries})
    assert found(root) == ({"sub", *inside} if is_one else set()), "of the folder itself, what makes it one and what it names"


def test_what_is_no_folder_is_no_repository_and_holds_nothing(root: Path) -> None:
    grow(root, "file")
    for name in ("file", "none"):
        assert not protected.is_repository(str(root / name))
        assert protected.find(str(root / name)) == {}


def test_sprigs_home_is_found_below_a_folder_and_nowhere_else(root: Path) -> None:
    grow(root, "data/mine/", "beside/")
    for folder in (str(root), f"{root}/"):
        assert protected.find(folder, str(root / "data/mine")).keys() == {str(root / "data/mine")}
    for own in ("", str(root), str(root / "none"), str(root.parent), f"{root}-2/mine"):
        grow(root.parent, "root-2/mine/")
        assert protected.find(str(root), own) == {}
    assert protected.find(str(root / "data"), str(root / "beside")) == {}


def test_it_looks_into_folders_and_follows_no_link(root: Path) -> None:
    grow(root.parent, "elsewhere/.git/")
    grow(
        root, "a/b/.envrc", "a/c -> ../../elsewhere", "venv/.git/", "d -> a", ".vscode -> nowhere", "a/.venv -> ../a/b", "e/file"
    )
    assert found(root) == {"a/b/.envrc", "venv", ".vscode", "a/.venv", "a/b"}, "where a link leads is as protected as the link"
    whole = protected.find(str(root))
    assert whole[str(root / "venv")] == ((root / "venv").stat().st_dev, (root / "venv").stat().st_ino)


def test_the_search_is_bounded_and_begins_with_what_is_near(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protected, "MOST_ENTRIES", 60)
    for i in range(60):
        (root / f"d{i}").mkdir()
    grow(root, "d1/.envrc", ".envrc")
    assert found(root) == {".envrc"}
    monkeypatch.setattr(protected, "MOST_ENTRIES", 61)
    assert found(root) == {".envrc", "d1/.envrc"}


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("[core]\n\thooksPath = hooks\n", {"hooks", ".git/hooks"}),
        ("[core]\n\tHOOKSPATH=\"with space\"\n", {"with space"}),
        ("[include]\n  path = ../inc  \r\n[includeIf \"x\"]\n  path = deep/inc\n", {"inc", "deep/inc"}),
        ("[core]\n\t; hooksPath = hooks\n\tbare = false\n", set()),
        ("[core]\n\thooksPath = /outside\n", set()),
        ("[core]\n\thooksPath = ../../root-2/hooks\n\thooksPath = none\n", set()),
        ("x" * 30_000 + "\n[core]\nhooksPath = hooks\n", {"hooks", ".git/hooks"}),
    ],
)  # fmt: skip
def test_where_a_git_configuration_leads_is_protected(config: str, names: set[str], root: Path) -> None:
    grow(root, ".git/hooks/", "hooks/", "with space/", "inc", "deep/inc", "sub/x")
    grow(root.parent, "root-2/hooks/")
    (root / ".git/config").write_text(config)
    assert found(root) == {".git", *names}
    for path in ("hooks", "hooks/x", "with space", "inc", "deep/inc/y", "deep", "hooks2", "sub/x"):
        within = any(path == name or path.startswith(name + "/") for name in names)
        for folder in (str(root), f"{root}/"):
            assert protected.is_named_by_git(folder, str(root / path)) == within


def test_a_git_file_names_its_folder_and_another_file_names_nothing(root: Path) -> None:
    grow(root, "meta/", "more/", "tree/sub/")
    (root / ".git").write_text("gitdir: meta\n")
    (root / "tree/.GIT").write_text("gitdir: ../more\n")
    (root / ".envrc").write_text("gitdir: tree\n")
    assert found(root) == {".git", "meta", "tree/.GIT", "more", ".envrc"}
    assert protected.is_named_by_git(str(root), str(root / "meta/config"))
    assert not protected.is_named_by_git(str(root), str(root / "more"))


def test_a_new_one_gets_the_first_name_that_is_free_and_an_old_one_keeps_its_own(root: Path) -> None:
    grow(root, "old/.git/", ".vscode/")
    before = protected.find(str(root))
    (root / "old").rename(root / "moved")
    grow(
        root,
        ".envrc.set-aside",
        ".envrc.set-aside-2 -> nowhere",
        ".envrc",
        "venv/",
        "a/.bashrc",
        *(f"bare/{e}" for e in REPOSITORY),
    )
    assert sorted(protected.set_aside(str(root), before)) == [".envrc", "a/.bashrc", "bare/", "venv"]
    assert {str(p.relative_to(root)) for p in root.rglob("*")} == {
        "moved", "moved/.git", ".vscode", "venv.set-aside", "a", "a/.bashrc.set-aside",
        ".envrc.set-aside", ".envrc.set-aside-2", ".envrc.set-aside-3",
        "bare", "bare/objects", "bare/refs", "bare/HEAD.set-aside",
    }  # fmt: skip
    assert protected.set_aside(str(root), before) == []
    grow(root, "venv/")
    protected.set_aside(str(root), before)
    assert (root / "venv.set-aside-2").is_dir()


def test_a_repository_with_a_protected_name_is_renamed_whole(root: Path) -> None:
    grow(root, *(f"{name}/{entry}" for name in (".git", "sub/.config/git", "plain") for entry in REPOSITORY))
    assert sorted(protected.set_aside(str(root), {})) == [".git", "plain/", "sub/.config/git"]
    assert (root / "sub/.config/git.set-aside/HEAD").exists()
    assert (root / "plain/HEAD.set-aside").exists()


@pytest.mark.parametrize("mode", [0o500, 0o300, 0o000, 0o555, 0o2111])
def test_no_mode_hides_a_new_one_and_only_then_it_is_changed(mode: int, root: Path) -> None:
    grow(root, "shut/.git/", "shut/in/.venv/", "open/file")
    (root / "shut").chmod(mode)
    (root / "open").chmod(0o750)

    def tried() -> list[list[str]]:
        sandbox.drop_capabilities()  # root would see and change everything
        readable = bool(mode & 0o400) and bool(mode & 0o100)
        return [sorted(found(root)) if readable else [], sorted(protected.set_aside(str(root), {}))]

    seen, done = forked(tried)
    assert seen == (["shut/.git", "shut/in/.venv"] if mode & 0o500 == 0o500 else [])
    assert done == ["shut/.git", "shut/in/.venv"]
    assert stat.S_IMODE((root / "shut").stat().st_mode) == mode | 0o700
    assert stat.S_IMODE((root / "open").stat().st_mode) == 0o750


def test_what_may_not_be_looked_into_is_left_alone_before_a_command_runs(root: Path) -> None:
    grow(root, "shut/.git/", "a/.envrc")
    (root / "shut").chmod(0o300)

    def tried() -> list[str]:
        sandbox.drop_capabilities()
        return sorted(found(root))

    assert forked(tried) == ["a/.envrc"]
    assert stat.S_IMODE((root / "shut").stat().st_mode) == 0o300


def test_what_lies_in_what_was_set_aside_is_set_aside_too_and_nothing_where_a_link_leads(root: Path) -> None:
    """Its old name kept it from acting, and an editor looks for repositories in any folder."""
    grow(root.parent, "elsewhere/.git/", "elsewhere/.envrc")
    grow(root, "venv/.git/", "venv/a/.venv/b/.envrc", *(f"bare/{entry}" for entry in REPOSITORY), "bare/.git/.vscode/")
    grow(root, *(f".git/{entry}" for entry in REPOSITORY), ".git/.git/config", ".venv -> ../elsewhere")
    done = protected.set_aside(str(root), {})
    assert sorted(done) == sorted([
        "venv", "venv.set-aside/.git", "venv.set-aside/a/.venv", "venv.set-aside/a/.venv.set-aside/b/.envrc",
        "bare/", "bare/.git", "bare/.git.set-aside/.vscode", ".git", ".git.set-aside/.git", ".venv",
    ])  # fmt: skip
    assert (root / ".git.set-aside/HEAD").exists(), "a repository is whole when it gets its name again"
    assert sorted(path.name for path in (root.parent / "elsewhere").iterdir()) == [".envrc", ".git"]


NAMES = st.sampled_from([".git", ".config", "fish", "src", "HEAD", "objects", "refs", "commondir"])
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), max_size=8)
HALVES = st.sets(st.sampled_from(["HEAD", "objects", "refs", "commondir", "src"]))


def expected(tree: dict[str, Any], path: tuple[str, ...] = ()) -> set[str]:
    """A simple model of what is found: by its name, or as a folder that git takes for a repository."""
    inside = set()
    if "HEAD" in tree and ("commondir" in tree or ("objects" in tree and "refs" in tree)):
        if path:
            return {"/".join(path)}
        inside = {"HEAD", "commondir"} & tree.keys()
    for name, inner in tree.items():
        if name == ".git" or (name == "fish" and path[-1:] == (".config",)):
            inside.add("/".join((*path, name)))
        else:
            inside |= expected(inner, (*path, name))
    return inside


@given(PATHS, HALVES)
@example([("HEAD", "HEAD"), ("HEAD", "commondir"), ("objects",), ("refs",)], set())  # a repository is the HEAD of another
def test_all_of_it_is_found_in_any_tree_and_once_set_aside_none_of_it_is_left(
    paths: list[tuple[str, ...]], half: set[str]
) -> None:
    tree: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for path in (*paths, *(("src", name) for name in half)):
            root.joinpath(*path).mkdir(parents=True, exist_ok=True)
            inside = tree
            for name in path:
                inside = inside.setdefault(name, {})
        before = len(list(root.rglob("*")))
        assert found(root) == expected(tree)
        done = {path.rstrip("/") for path in protected.set_aside(str(root), {})}
        assert all(path in done or any(path.startswith(other + "/") for other in done) for path in expected(tree))
        assert all(path.endswith(".set-aside") for path in found(root)), "a repository is whole under its other name"
        assert not [path for path in root.rglob("*") if path.name == ".git"]
        assert len(list(root.rglob("*"))) == before, "nothing is lost"
