"""Device profiles: Sprig's own, a user's, and what is said of one that is broken or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.fit.profile import DeviceProfile, ProfileError, find_profile, list_profiles, read_profile, sized
from agent.gguf.types import ARM_REPACKED

GOOD = """
title = "A board"
memory = ["1GB", "4GB"]
usual = "4GB"
system = "300MB"
cores = "4 x Cortex-A72"
machine = "aarch64"
features = ["dotprod"]

[decode]
layer = { value = 0.2, basis = "measured", source = "my bench" }
bandwidth = { value = 5, basis = "measured", source = "my bench" }
error = 15

[prefill]
Q4_0 = { value = 80, basis = "measured", source = "my bench" }
plain = { value = 30, basis = "measured", source = "my bench" }
attention = { value = 20, basis = "derived", source = "my guess" }
error = 25
"""


@pytest.fixture
def devices(home: Path) -> Path:
    folder = home / "devices"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.usefixtures("home")
def test_sprigs_own_profiles_are_sound_and_say_where_each_figure_is_from() -> None:
    found = list(list_profiles())
    assert not [one for one in found if isinstance(one, ProfileError)]
    names = {one.name for one in found if isinstance(one, DeviceProfile)}
    assert names >= {"pi3", "pi4", "pi5", "zero2w", "rk3566", "rk3588", "orin-nano", "pixel-9", "snapdragon-8-gen-3"}
    for one in found:
        assert isinstance(one, DeviceProfile)
        figures = [
            one.decode.layer, one.decode.bandwidth, *one.decode.types.values(), *one.prefill.types.values(), one.prefill.repacked,
            one.prefill.plain, one.prefill.attention,
        ]  # fmt: skip
        assert all(len(figure.source) > 8 for figure in figures)
        assert 0 < one.budget < one.memory - one.system < one.memory
        assert one.prefill.plain.value <= one.prefill.repacked.value


@pytest.mark.usefixtures("home")
def test_a_size_goes_behind_the_name() -> None:
    assert find_profile("pi5").memory == 8_000_000_000
    assert find_profile("PI5-16GB").memory == 16_000_000_000
    assert find_profile("pi5-16gb").full_name == "pi5-16gb"
    assert find_profile("zero2w").full_name == "zero2w"
    assert sized("x", 512_000_000) == "x-512mb"
    assert find_profile("pi5").processor.repacked == ARM_REPACKED
    assert find_profile("pi4").processor.repacked == frozenset()
    # A name may look as if it had a size.
    assert find_profile("snapdragon-8-gen-3").name == "snapdragon-8-gen-3"
    assert find_profile("snapdragon-8-gen-3-16gb").memory == 16_000_000_000


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("wanted", "said"), [
    ("pi6", "did you mean pi5?"), ("rk3588s", "did you mean rk3588?"), ("toaster", "--devices"), ("", "--devices"),
    ("../pi5", "no device"), ("pi5-3gb", "pi5-2gb, pi5-4gb, pi5-8gb, pi5-16gb"),
])  # fmt: skip
def test_a_device_that_is_not_known_is_one_line_with_a_way_on(wanted: str, said: str) -> None:
    with pytest.raises(ProfileError) as error:
        find_profile(wanted)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_users_own_device_is_found_and_comes_before_sprigs(devices: Path) -> None:
    (devices / "board.toml").write_text(GOOD)
    found = find_profile("board-1gb")
    assert (found.title, found.memory, found.decode.error) == ("A board", 1_000_000_000, 15)
    assert found.prefill.repacked == found.prefill.plain
    (devices / "pi5.toml").write_text(GOOD)
    assert find_profile("pi5").title == "A board"


BROKEN = {
    "no TOML": ("title = ", "is not TOML"),
    "no title": (GOOD.replace("title", "titel"), "titel is not a key of a profile; did you mean title?"),
    "no size": (GOOD.replace('"1GB"', '"much"'), "memory is 'much', which is no size"),
    "no memory": (GOOD.replace('memory = ["1GB", "4GB"]', "memory = []"), "memory names no size"),
    "other usual": (GOOD.replace('usual = "4GB"', 'usual = "2GB"'), "usual is none of the sizes"),
    "large system": (GOOD.replace('"300MB"', '"1GB"'), "system is as much"),
    "no basis": (GOOD.replace('"derived"', '"felt"'), "prefill.attention.basis is 'felt'"),
    "no source": (GOOD.replace('"my guess"', '""'), "prefill.attention.source is missing"),
    "no number": (GOOD.replace("value = 80", 'value = "80"'), "prefill.Q4_0.value is '80'"),
    "negative": (GOOD.replace("value = 5,", "value = -5,"), "decode.bandwidth.value is -5"),
    "not a number": (GOOD.replace("value = 5,", "value = nan,"), "decode.bandwidth.value is nan"),
    "infinite": (GOOD.replace("value = 5,", "value = inf,"), "decode.bandwidth.value is inf"),
    "other type": (GOOD.replace("Q4_0 =", "Q9_0 ="), "prefill.Q9_0 is not a key"),
    "no figure": (
        GOOD.replace('layer = { value = 0.2, basis = "measured", source = "my bench" }', "layer = 0.2"),
        "decode.layer is missing",
    ),
    "no table": (GOOD.partition("[prefill]")[0], "prefill is missing: there must be a table [prefill]"),
    "no error": (GOOD.replace("error = 15", ""), "decode.error is None"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_profile_names_the_file_the_key_and_what_to_do(devices: Path, fault: str) -> None:
    text, said = BROKEN[fault]
    path = devices / "mine.toml"
    path.write_text(text)
    with pytest.raises(ProfileError) as error:
        find_profile("mine")
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "correct it" in str(error.value)
    # The others can still be listed.
    found = list(list_profiles())
    assert [type(one) for one in found].count(ProfileError) == 1
    assert len(found) > 5


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="is not TOML"):
        read_profile(path)
    with pytest.raises(ProfileError, match="cannot read"):
        read_profile(tmp_path / "none.toml")
