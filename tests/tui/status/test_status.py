"""What a person reads at the bottom of the chat."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.color import Color as TerminalColor
from textual.app import App, ComposeResult
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Static

from agent.device.machine import Battery
from agent.text import display
from tests.fixtures.paths import ROOT
from tui.status.details import details
from tui.status.monitor import DeviceState
from tui.status.pieces import SEPARATOR, StatusPiece, pieces
from tui.status.status import ModelState, Speed, Status, VoiceState
from tui.status.words import bar, percent, seconds_left, short, tokens
from tui.themes import register
from tui.widgets.status_line import CALM, StatusLine

WRITING = Status(
    "writing",
    model="SmolLM2-135M-Instruct",
    quantization="Q4_K_M",
    speed=12.34,
    used=1229,
    context=8192,
    cached=1100,
    new=129,
    memory=386_000_000,
    device=DeviceState(available=2_100_000_000, load=3.2, temperature=52.0, throttled=(), battery=Battery(64, "Discharging")),
)
READING = replace(WRITING, state="reading", read=1240, read_total=2114, read_cached=900, left=6.2)


def line(status: Status, width: int) -> str:
    return SEPARATOR.join(p.text for p in pieces(status, width))


def test_on_a_phone_only_what_matters_most_is_there() -> None:
    assert line(WRITING, 40) == "writing · 12.3 t/s · 1.2k/8k 15 %"
    assert line(WRITING, 30) == "writing · 12.3 t/s · 15 % full"
    assert line(WRITING, 20) == "writing · 12.3 t/s"


def test_a_wide_line_tells_all_of_it() -> None:
    assert line(WRITING, 160) == (
        "writing · 12.3 t/s · 1.2k/8k 15 % · 1.1k cached + 129 new · SmolLM2-135M-Instruct Q4_K_M · "
        "memory 386 MB, 2.10 GB free · 52 °C · battery 64 % · load 3.2"
    )


def test_prefill_shows_how_far_it_is_and_how_long_it_takes() -> None:
    assert line(READING, 40) == "reading 1,240/2,114 ▰▰▱▱▱  6 s left"
    assert line(READING, 30) == "reading ▰▰▱▱▱  6 s left"
    assert line(READING, 20) == "reading 58 % · 52 °C"
    assert line(replace(READING, left=None), 36) == "reading 1,240/2,114 ▰▰▱▱▱ 58 %"
    assert "900 cached" in line(READING, 160)
    assert line(replace(READING, read=9), 40).startswith("reading     9/2,114")


def test_what_is_read_ahead_keeps_nobody_waiting_and_says_so() -> None:
    ahead = replace(READING, state="ahead")
    assert line(ahead, 40).startswith("ready, reads ahead 58 %")
    assert line(ahead, 8) == "ready"
    assert dict(details(ahead))["State"] == "ready; system prompt and tools are read before you ask"


def test_loading_shows_how_far_it_is() -> None:
    assert line(Status("loading", loaded=0.62), 40) == "loading ▰▰▰▱▱ 62 %"
    assert line(Status("loading", loaded=0.62), 100) == "loading ▰▰▰▰▰▰▱▱▱▱ 62 %"
    assert line(Status("loading"), 40) == "loading"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (replace(WRITING, used=7200), "87 % full"),
        (replace(WRITING, used=8192), "100 % full"),
        (replace(WRITING, device=DeviceState(temperature=71.2)), "71 °C hot"),
        (replace(WRITING, device=DeviceState(temperature=84, throttled=("under-voltage",))), "throttled!"),
        (replace(WRITING, device=DeviceState(battery=Battery(9, "Discharging"))), "battery 9 % low"),
        (replace(WRITING, device=DeviceState(available=96_000_000)), "only 96 MB free"),
        (replace(WRITING, queued=2), "2 queued"),
        (replace(WRITING, voice=VoiceState("listening", 0.4)), "listening"),
        (replace(WRITING, state="waiting"), "waiting for you"),
    ],
)
def test_what_a_person_must_know_is_said_in_words_on_a_phone_too(status: Status, words: str) -> None:
    assert words in line(status, 40)


def test_a_wide_line_says_why_it_is_slow_and_what_is_nearly_full() -> None:
    hot = replace(WRITING, used=7200, device=DeviceState(temperature=84, throttled=("under-voltage", "throttled")))
    assert "84 °C hot throttled: under-voltage, throttled" in line(hot, 160)
    assert "7.0k/8k 87 % nearly full" in line(hot, 160)


def test_a_charging_battery_is_not_low() -> None:
    charging = replace(WRITING, device=DeviceState(battery=Battery(9, "Charging")))
    assert "low" not in line(charging, 160)
    assert "battery 9 % charging" in line(charging, 160)


def test_what_is_not_known_is_not_said() -> None:
    assert line(Status("ready", memory=0, context=0, used=5, device=DeviceState()), 160) == "ready"
    assert line(Status(), 160) == "no model"


def test_a_model_that_says_its_type_in_its_name_says_it_once() -> None:
    assert line(Status("ready", model="tiny-q4_k_m", quantization="Q4_K_M"), 80) == "ready · tiny-q4_k_m"
    long = line(Status("ready", model="m" * 60, quantization="Q8_0"), 80)
    assert long == f"ready · {'m' * 27}… Q8_0"


def test_names_cannot_command_the_terminal() -> None:
    evil = "a\x1b[31m\u202eb\nc"
    shown = line(Status("tool", model=evil, quantization=evil, tool=evil), 160)
    assert shown.isprintable()
    assert all(value.isprintable() for _, value in details(Status("tool", model=evil, quantization=evil, tool=evil)))


def test_numbers_do_not_push_each_other_about_while_words_come() -> None:
    def places(status: Status) -> list[int]:
        text = line(status, 60)
        return [text.index(word) for word in ("t/s", "/8k")]

    busy = [replace(WRITING, speed=v, used=u) for v, u in [(9.9, 990), (12.3, 1229), (104.2, 4000), (None, 1), (3.0, 819)]]
    assert len({tuple(places(status)) for status in busy}) == 1
    assert len({len(line(status, 60)) for status in busy}) == 1


anything = st.floats() | st.none()
counts = st.integers(-5, 10**18) | st.none()
some_text = st.text(max_size=60)
statuses = st.builds(
    Status,
    state=st.sampled_from(get_args(ModelState)),
    model=some_text,
    quantization=some_text,
    tool=some_text,
    loaded=anything,
    read=st.integers(-5, 10**18),
    read_total=st.integers(-5, 10**18),
    read_cached=st.integers(-5, 10**18),
    left=anything,
    speed=anything,
    used=counts,
    context=counts,
    cached=counts,
    new=counts,
    memory=counts,
    queued=st.integers(0, 10**6),
    device=st.builds(
        DeviceState,
        available=counts,
        load=anything,
        temperature=anything,
        throttled=st.lists(some_text, max_size=3).map(tuple) | st.none(),
        battery=st.builds(Battery, st.integers(0, 100), some_text) | st.none(),
    ),
    voice=st.builds(VoiceState, st.sampled_from(["off", "missing", "starting", "listening"]), anything),
)


@given(statuses, st.integers(20, 240))
def test_the_line_fits_whatever_is_in_it(status: Status, width: int) -> None:
    shown = pieces(status, width)
    text = SEPARATOR.join(p.text for p in shown)
    assert shown
    assert cell_len(text) <= width
    assert display(text) == text
    assert [p.right for p in shown] == sorted(p.right for p in shown)
    assert pieces(status, width) == shown


@given(statuses)
def test_details_say_what_is_known_and_are_safe(status: Status) -> None:
    told = details(status)
    assert all(name and value and display(value) == value for name, value in told)
    assert "State" in dict(told)


def test_details_are_at_full_length() -> None:
    told = dict(details(replace(READING, queued=1, voice=VoiceState("missing"))))
    assert told["Prompt"] == "1,240 of 2,114 tokens read, 900 of them from the cache; 6 s left"
    assert told["Context"] == "1,229 of 8,192 tokens, 15 %"
    assert told["Throttling"] == "none"
    assert told["Queued"] == "1 message"
    assert told["Voice"] == "no engine is installed"
    assert dict(details(WRITING))["Last prompt"] == "1,100 tokens from the cache, 129 computed"


def test_numbers_are_rounded_so_that_they_do_not_lie() -> None:
    assert (percent(0.999), percent(1.0), percent(math.nan)) == ("99 %", "100 %", "0 %")
    assert (bar(0.99, 5), bar(1, 5), bar(-1, 3)) == ("▰▰▰▰▱", "▰▰▰▰▰", "▱▱▱")
    assert [tokens(n) for n in (0, 999, 1000, 1234, 9_949, 9_960, 12_345, 999_600, 1_250_000)] == [
        "0", "999", "1k", "1.2k", "9.9k", "10k", "12k", "1.0M", "1.2M",
    ]  # fmt: skip
    assert [tokens(n, 1024) for n in (8192, 32768, 131_072, 1229)] == ["8k", "32k", "128k", "1.2k"]
    assert [seconds_left(s) for s in (None, math.inf, -3, 0.2, 6.4, 99.4, 150, 7300)] == [
        "", "", " 0 s left", " 0 s left", " 6 s left", "99 s left", "2 min left", "2 h left",
    ]  # fmt: skip
    assert short("世" * 30) == "世" * 13 + "…"


def test_the_live_speed_follows_the_last_three_seconds() -> None:
    speed = Speed()
    assert speed.rate(0.0) is None
    for i in range(41):  # ten a second
        speed.add(1, i * 0.1)
    assert speed.rate(4.0) == pytest.approx(10)
    for i in range(1, 41):  # then two tokens, ten times a second
        speed.add(2, 4 + i * 0.1)
    assert speed.rate(8.0) == pytest.approx(20)
    assert speed.rate(8.9) == pytest.approx(20)
    falling = [speed.rate(8 + s) or 0.0 for s in (2, 4, 8)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 10
    speed.clear()
    assert speed.rate(20.0) is None


def test_the_speed_of_a_very_slow_model_is_told_and_a_pause_is_forgotten() -> None:
    slow = Speed()
    for i in range(4):
        slow.add(1, i * 5.0)
    assert slow.rate(15.0) == pytest.approx(0.2)
    for i in range(1, 11):  # a tool ran for a minute, then ten tokens a second
        slow.add(1, 75 + i * 0.1)
    assert slow.rate(76.0) == pytest.approx(10)


def test_the_end_of_prefill_is_foretold_from_what_was_computed_not_from_the_cache() -> None:
    speed = Speed()
    speed.read(1000, 2000, 10.0)
    assert speed.left(10.0) is None
    speed.read(1040, 2000, 10.4)
    assert speed.left(10.4) is None  # too early to say
    speed.read(1100, 2000, 11.0)
    assert speed.read_rate() == pytest.approx(100)
    assert speed.left(11.0) == pytest.approx(9)
    assert speed.left(12.0) == pytest.approx(8)  # it counts down between two words of the model
    speed.read(1150, 2000, 12.0)
    left = speed.left(12.0)
    assert left is not None
    assert 8 < left < 11.4  # slower now, but it does not jump
    speed.read(2000, 2000, 13.0)
    speed.read(1500, 2600, 20.0)
    assert speed.left(20.0) is None  # another prompt


class LineApp(App[None]):
    CSS_PATH = ROOT / "tui/widgets/status_line.tcss"
    CSS = "StatusLine { dock: bottom; }"

    def __init__(self, status: Status) -> None:
        super().__init__()
        self.line = StatusLine()
        self.line.status = status
        self.wanted: list[Status] = []

    def compose(self) -> ComposeResult:
        yield Static("conversation")
        yield self.line

    def on_status_line_details_wanted(self, event: StatusLine.DetailsWanted) -> None:
        self.wanted.append(event.status)


def bottom(app: LineApp) -> str:
    return "".join(segment.text for segment in app.screen._compositor.render_strips()[-1])


@pytest.mark.parametrize("size", [(40, 15), (60, 20), (80, 24), (160, 50)])
async def test_it_is_one_row_at_the_bottom_on_every_screen(size: tuple[int, int]) -> None:
    app = LineApp(WRITING)
    async with app.run_test(size=size) as pilot:
        assert app.line.size.height == 1
        assert bottom(app).strip() == app.line.text.strip()
        assert app.line.text.startswith("writing · 12.3 t/s · 1.2k/8k")
        await pilot.resize_terminal(30, 15)
        await pilot.pause()
        assert bottom(app).strip() == app.line.text.strip() == "writing · 12.3 t/s     52 °C"


async def test_enter_or_a_click_asks_for_all_of_it() -> None:
    app = LineApp(WRITING)
    async with app.run_test(size=(80, 24)) as pilot:
        app.line.focus()
        await pilot.press("enter")
        await pilot.click(StatusLine)
        assert app.wanted == [WRITING, WRITING]


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[Content]:
    """What was painted, each time."""
    lines: list[Content] = []
    render = StatusLine.render

    def count(line: StatusLine) -> Content:
        lines.append(render(line))
        return lines[-1]

    monkeypatch.setattr(StatusLine, "render", count)
    return lines


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        await pilot.pause(0.02)


async def test_it_is_painted_again_only_when_what_is_shown_changes(painted: list[Content]) -> None:
    app = LineApp(WRITING)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: "12.3 t/s" in bottom(app))
        painted.clear()
        app.line.update(replace(WRITING, speed=12.339, memory=387_000_000))  # rounds to the same; memory has no room
        await pilot.pause()
        assert painted == []
        app.line.update(replace(WRITING, speed=13.0))
        await until(pilot, lambda: "13.0 t/s" in bottom(app))
        assert len(painted) == 1


async def test_numbers_stand_long_enough_to_be_read_and_the_last_one_stays(painted: list[Content]) -> None:
    app = LineApp(WRITING)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: "12.3 t/s" in bottom(app))
        painted.clear()
        began = time.monotonic()
        for speed in range(20, 50):
            app.line.update(replace(WRITING, speed=float(speed)))
            await pilot.pause()
        await until(pilot, lambda: "49.0 t/s" in bottom(app))
        assert len(painted) <= 2 + (time.monotonic() - began) / CALM


async def test_another_state_is_shown_at_once(painted: list[Content]) -> None:
    app = LineApp(WRITING)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: "12.3 t/s" in bottom(app))
        app.line.update(replace(WRITING, speed=13.0))  # which waits
        painted.clear()
        app.line.update(replace(WRITING, state="waiting"))
        await pilot.pause()
        assert "waiting for you" in bottom(app)


def light(color: TerminalColor) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [v / 255 for v in color.get_truecolor()]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# Of sprig-16 only the terminal knows what its colours look like.
@pytest.mark.parametrize(("theme", "least"), [("sprig", 4.5), ("sprig-light", 4.5), ("sprig-contrast", 7.0)])
async def test_every_word_can_be_read_in_every_theme(theme: str, least: float) -> None:
    app = LineApp(replace(WRITING, device=DeviceState(temperature=85.0), queued=1))
    async with app.run_test(size=(120, 24)) as pilot:
        register(app)
        app.theme = theme
        await pilot.pause()
        words = [s for s in app.screen._compositor.render_strips()[-1] if s.text.strip(" ·")]
        assert len(words) > 5
        for word in words:
            assert word.style is not None
            assert word.style.color is not None
            assert word.style.bgcolor is not None
            dark, bright = sorted([light(word.style.color), light(word.style.bgcolor)])
            assert (bright + 0.05) / (dark + 0.05) >= least, word


async def test_markup_in_a_models_name_is_only_text() -> None:
    app = LineApp(replace(WRITING, model="[b]x[/b][@click=app.quit]"))
    async with app.run_test(size=(100, 24)):
        assert "[b]x[/b][@click=app.quit]" in bottom(app)


def test_pieces_have_roles_for_colour() -> None:
    roles = {p.text: p.role for p in pieces(replace(WRITING, device=DeviceState(temperature=85)), 80)}
    assert roles["85 °C hot"] == "bad"
    assert StatusPiece("writing", "busy") in pieces(WRITING, 80)
