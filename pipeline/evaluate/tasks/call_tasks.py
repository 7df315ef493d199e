"""The set of tool calls: sixty wishes that one call of one tool fulfils, with its arguments, and twenty that need none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.tools.define import Tool, tool

Room = Literal["kitchen", "bedroom", "garage", "hall", "bathroom"]


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city.

    Args:
        city: name of the city
    """
    return f"{city}: 18 degrees, sunny"


@tool
def set_timer(minutes: int) -> str:
    """Start a timer.

    Args:
        minutes: how long
    """
    return f"a timer of {minutes} minutes runs"


@tool
def water_bed(bed: int, seconds: int = 30) -> str:
    """Water a garden bed.

    Args:
        bed: number of the bed, 1 to 9
        seconds: how long
    """
    return f"bed {bed} was watered for {seconds} seconds"


@tool
def set_light(room: Room, on: bool) -> str:
    """Switch the light of a room on or off.

    Args:
        room: which room
        on: true for on, false for off
    """
    return f"the light in the {room} is {'on' if on else 'off'}"


@tool
def play_music(artist: str) -> str:
    """Play music by an artist.

    Args:
        artist: name of the artist or band
    """
    return f"playing {artist}"


@tool
def send_message(name: str, text: str) -> str:
    """Send a text message to a person.

    Args:
        name: of the person
        text: what to say
    """
    return f"sent to {name}"


TOOLS: tuple[Tool, ...] = (get_weather, set_timer, water_bed, set_light, play_music, send_message)


@dataclass(frozen=True, slots=True)
class CallTask:
    """A wish, and the call that fulfils it: ``tool`` is None where none should be made."""

    wish: str
    tool: str | None = None
    arguments: Mapping[str, Any] | None = None


def _weather(city: str, wish: str) -> CallTask:
    return CallTask(wish, "get_weather", {"city": city})


def _light(room: str, on: bool, wish: str) -> CallTask:
    return CallTask(wish, "set_light", {"room": room, "on": on})


CALLS: tuple[CallTask, ...] = (
    _weather("Paris", "What is the weather in Paris?"),
    _weather("Berlin", "How is the weather in Berlin today?"),
    _weather("Tokyo", "Is it raining in Tokyo?"),
    _weather("Madrid", "Get the weather of Madrid."),
    _weather("Oslo", "Tell me the weather in Oslo."),
    _weather("London", "Will I need an umbrella in London?"),
    _weather("Rome", "What's the weather like in Rome?"),
    _weather("Cairo", "How hot is it in Cairo?"),
    _weather("Boston", "Weather in Boston, please."),
    _weather("Lima", "Check the weather for Lima."),
    *(
        CallTask(wish, "set_timer", {"minutes": minutes})
        for minutes, wish in (
            (5, "Set a timer for 5 minutes."),
            (10, "Start a timer of 10 minutes."),
            (3, "Timer, 3 minutes please."),
            (20, "Set a 20 minute timer."),
            (15, "Wake me in 15 minutes with a timer."),
            (45, "Set the timer to 45 minutes."),
            (8, "I need a timer for 8 minutes."),
            (12, "Start a 12 minute timer for the pasta."),
            (30, "Please set a timer for 30 minutes."),
            (60, "Set a timer for 60 minutes."),
        )
    ),
    *(
        CallTask(wish, "water_bed", {"bed": bed, "seconds": seconds})
        for bed, seconds, wish in (
            (2, 60, "Water bed 2 for 60 seconds."),
            (3, 20, "Water garden bed 3 for 20 seconds."),
            (1, 45, "Give bed 1 water for 45 seconds."),
            (4, 10, "Water bed number 4 for 10 seconds."),
            (5, 90, "Please water bed 5 for 90 seconds."),
            (6, 15, "Water bed 6, 15 seconds."),
            (7, 40, "Bed 7 needs water for 40 seconds."),
            (8, 25, "Water the garden bed 8 for 25 seconds."),
            (9, 50, "Water bed 9 for 50 seconds, please."),
            (2, 35, "Let bed 2 have water for 35 seconds."),
        )
    ),
    _light("kitchen", True, "Turn on the light in the kitchen."),
    _light("bedroom", False, "Switch off the bedroom light."),
    _light("garage", True, "Switch the garage light on."),
    _light("hall", False, "Turn off the light in the hall."),
    _light("bathroom", True, "Light on in the bathroom, please."),
    _light("kitchen", False, "Turn the kitchen light off."),
    _light("bedroom", True, "Please turn on the bedroom light."),
    _light("garage", False, "Switch off the light in the garage."),
    _light("hall", True, "Put the hall light on."),
    _light("bathroom", False, "Turn the light in the bathroom off."),
    *(
        CallTask(wish, "play_music", {"artist": artist})
        for artist, wish in (
            ("Mozart", "Play some music by Mozart."),
            ("The Beatles", "Play The Beatles."),
            ("Miles Davis", "I want to hear Miles Davis."),
            ("Adele", "Play music by Adele."),
            ("Bach", "Put on some Bach."),
            ("Queen", "Play songs by Queen."),
            ("Nina Simone", "Play Nina Simone, please."),
            ("Radiohead", "Play something by Radiohead."),
            ("Bob Marley", "Let me listen to Bob Marley."),
            ("Chopin", "Play music by Chopin."),
        )
    ),
    *(
        CallTask(wish, "send_message", {"name": name, "text": text})
        for name, text, wish in (
            ("Anna", "I am late", "Send Anna the message: I am late"),
            ("Tom", "Dinner is ready", "Text Tom: Dinner is ready"),
            ("Maria", "Happy birthday", "Send a message to Maria: Happy birthday"),
            ("Ben", "Call me", "Send Ben a message: Call me"),
            ("Lisa", "See you soon", "Message Lisa: See you soon"),
            ("Paul", "Good luck", "Send Paul the text: Good luck"),
            ("Emma", "I am home", "Send a message to Emma: I am home"),
            ("Jack", "Thank you", "Text Jack: Thank you"),
            ("Nora", "On my way", "Send Nora the message: On my way"),
            ("Oscar", "Good night", "Send a message to Oscar: Good night"),
        )
    ),
)

NONE: tuple[CallTask, ...] = tuple(
    CallTask(wish)
    for wish in (
        "Hello!",
        "What is the capital of France?",
        "Who wrote Hamlet?",
        "Tell me a joke.",
        "How are you?",
        "What is 2 plus 2?",
        "Why is the sky blue?",
        "Write a short poem about the sea.",
        "What is your name?",
        "Translate 'good morning' to Spanish.",
        "Who was Albert Einstein?",
        "What colour is a banana?",
        "Thank you very much!",
        "Name three animals.",
        "Explain what gravity is.",
        "What is the largest planet?",
        "How do you spell 'necessary'?",
        "Give me a synonym of 'happy'.",
        "What year did World War II end?",
        "Is a tomato a fruit?",
    )
)


def right(task: CallTask, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a call is the one that the task asks for. Texts are compared without case, outer blanks and final stops."""
    wanted = task.arguments or {}
    return name == task.tool and set(arguments) == set(wanted) and all(_same(arguments[k], wanted[k]) for k in wanted)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, str) and isinstance(b, str):
        return a.strip(" .!").casefold() == b.strip(" .!").casefold()
    return type(a) is type(b) and bool(a == b)
