"""The guide to the chat says what is so: its keys, commands, options, settings and pictures are those of the program."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from agent.settings.declare import each_setting
from agent.settings.edit import default_text
from tests.fixtures.paths import ROOT
from tui.actions import actions
from tui.cli import chat_app
from tui.commands.table import COMMANDS
from tui.screens.help import APPROVAL
from tui.settings.values import OWN_THEMES, ChatSettings

DOCS = ROOT / "docs"
CHAT = (DOCS / "chat.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md"))]
_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
PICTURES = sorted({(page.parent / name).resolve() for page in PAGES for name in _PICTURE.findall(page.read_text())})


def section(heading: str) -> str:
    """What stands below a heading of the guide."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", CHAT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/chat.md has no section {heading}"
    return found[1]


def test_the_table_of_keys_is_that_of_the_program() -> None:
    wanted = [f"| {a.group} | {a.shown} | {a.about} | `{a.id}` |" for a in actions({})]
    found = [line for line in section("Keys").splitlines() if line.startswith("|") and line.endswith("` |")]
    assert found == wanted, "write the table anew:\n" + "\n".join(wanted)


def test_the_table_of_commands_is_that_of_the_program() -> None:
    wanted = [f"| `{f'/{c.name} {c.hint}'.strip()}` | {c.about} |".replace(c.hint, c.hint.replace("|", "\\|")) for c in COMMANDS]
    found = [line for line in section("Commands").splitlines() if line.startswith("| `/")]
    assert found == wanted, "write the table anew:\n" + "\n".join(wanted)


def test_every_command_that_the_guides_name_is_there() -> None:
    known = {c.name for c in COMMANDS}
    named = set(re.findall(r"`/([a-z]+)[ `]", CHAT))
    assert named >= known
    assert named <= known, "docs/chat.md names commands that are not there"


def test_the_keys_of_a_question_are_those_of_the_program() -> None:
    for keys, _ in APPROVAL:
        assert ", ".join(f"`{key}`" for key in keys.split(", ")) in section("Tools")


def test_every_option_of_the_command_is_in_the_guide_and_no_other() -> None:
    help_text = CliRunner().invoke(chat_app, ["--help"]).output
    real = {name for p in get_command(chat_app).params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
    assert all(name in help_text for name in real if name.startswith("--"))
    lines = [line.split("|")[1] for line in section("Starting").splitlines() if line.startswith("| `-")]
    table = {name for line in lines for name in re.findall(r"`(--?[a-z-]+)`", line)}
    assert table == real - {"-h", "--help"}
    others = {name for line in re.findall(r"sprig chat[^\n`]*", CHAT) for name in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)}
    assert others <= real


def test_the_settings_file_is_shown_as_it_is() -> None:
    text = (DOCS / "settings.md").read_text()
    shown = re.search(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert shown[1] == default_text(ChatSettings), "write the block anew:\n" + default_text(ChatSettings)
    for one in each_setting(ChatSettings):
        assert f"#{one.where[-1]} = " in shown[1]


def test_the_themes_of_the_guide_are_there() -> None:
    assert re.findall(r"^\| `(sprig[a-z0-9-]*)` \|", section("Themes"), re.MULTILINE) == list(OWN_THEMES)


def test_the_guides_have_pictures() -> None:
    assert {p.stem for p in PICTURES} >= {"chat", "approval", "diff", "phone", "models", "sessions", "theme-contrast", "theme-16"}
    assert sorted((DOCS / "images").iterdir()) == PICTURES, "a picture is made that no page shows, or shown and not made"


@pytest.mark.parametrize("path", PICTURES, ids=lambda p: p.stem)
def test_a_picture_is_small_and_fetches_nothing(path: Path) -> None:
    data = path.read_bytes()
    assert len(data) < 150_000
    root = ElementTree.fromstring(data)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    tags = {str(node.tag).rpartition("}")[2] for node in root.iter()}
    assert not tags & {"script", "image", "a", "foreignObject", "use", "animate", "iframe"}
    text = data.decode().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|\bsrc\b|href=|url\((?!#)", text)
    assert all(not name.startswith("on") for node in root.iter() for name in node.attrib)
    said = "".join(root.itertext())
    assert str(Path.home()) not in said
    assert "/tmp/" not in said


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        to = (page.parent / name).resolve() if name else page
        assert to.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", to.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in anchors, f"{page.name}: {target}"


def test_make_tells_of_the_chat() -> None:
    text = (ROOT / "Makefile").read_text()
    assert re.search(r'^chat: \$\(VENV\)/\.chat ## .*\n\t@\$\(BIN\)/sprig chat -m "\$\$\{MODEL:-demo\}"$', text, re.MULTILINE)
    assert re.search(r"^screenshots: \$\(VENV\)/\.dev ## .*\n\t@\$\(BIN\)/python docs/screenshots\.py$", text, re.MULTILINE)
