"""Twelve tools of a home, as an agent on a board would have them: about 1,800 tokens of prompt."""

from __future__ import annotations

from typing import Literal

from agent.tools.define import Tool, tool

Room = Literal["kitchen", "bedroom", "bathroom", "living room", "hall", "garage", "cellar", "attic"]
Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


@tool
def get_weather(city: str, days: int = 1, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Get the weather forecast of a city for the next days, with temperature, rain and wind.

    Args:
        city: name of the city, in English
        days: how many days to look ahead, 1 to 7
        unit: in which unit temperatures are given
    """
    return f"{city}: {days} days of sun ({unit})"


@tool
def set_light(room: Room, brightness: int, colour: str = "warm white") -> str:
    """Set the lights of a room to a brightness and a colour.

    Args:
        room: which room of the house
        brightness: in percent, 0 switches the light off
        colour: name of the colour, or a hexadecimal RGB value
    """
    return f"{room}: {brightness} % {colour}"


@tool
def set_heating(room: Room, degrees: float, until: str = "") -> str:
    """Set the target temperature of a room's heating.

    Args:
        room: which room of the house
        degrees: target temperature in degrees Celsius, 5 to 28
        until: time of the day at which the old target comes back, like 22:30; empty for no end
    """
    return f"{room}: {degrees} until {until}"


@tool
def water_bed(bed: int, seconds: int = 30, valve: Literal["main", "drip", "spray"] = "main") -> str:
    """Open the valve of a garden bed for some time.

    Args:
        bed: number of the garden bed, 1 to 8
        seconds: how long the valve stays open
        valve: which of the bed's valves is opened
    """
    return f"bed {bed}, {valve}: {seconds} s"


@tool
def play_music(artist: str, album: str = "", room: Room = "living room", volume: int = 30) -> str:
    """Play music of an artist, or one album, on the loudspeakers of a room.

    Args:
        artist: name of the artist or the band
        album: title of an album; empty for anything by the artist
        room: where to play it
        volume: in percent
    """
    return f"{artist} {album} in {room} at {volume}"


@tool
def send_message(name: str, text: str, urgent: bool = False) -> str:
    """Send a text message to a person of the address book.

    Args:
        name: of the person, as it is in the address book
        text: what to say
        urgent: whether it makes a sound at night too
    """
    return f"{name}: {text} ({urgent})"


@tool
def add_event(title: str, day: Day, start: str, minutes: int = 60, people: list[str] | None = None) -> str:
    """Add an event to the family's calendar.

    Args:
        title: what it is called
        day: day of the week on which it takes place
        start: time of the day, like 14:30
        minutes: how long it takes
        people: names of those who take part
    """
    return f"{title} on {day} at {start} for {minutes} with {people}"


@tool
def list_events(day: Day, person: str = "") -> str:
    """List the events of a day in the family's calendar.

    Args:
        day: day of the week
        person: only events in which this person takes part; empty for all
    """
    return f"nothing on {day} {person}"


@tool
def add_to_list(name: Literal["shopping", "todo", "wishes"], item: str, amount: int = 1) -> str:
    """Put an item on one of the household's lists.

    Args:
        name: which list
        item: what to put on it
        amount: how many of it
    """
    return f"{name}: {amount} {item}"


@tool
def lock_door(door: Literal["front", "back", "garage", "garden"], locked: bool) -> str:
    """Lock or unlock a door of the house.

    Args:
        door: which door
        locked: true locks it, false unlocks it
    """
    return f"{door}: {locked}"


@tool
def read_sensor(room: Room, kind: Literal["temperature", "humidity", "light", "motion", "co2"], hours: int = 0) -> str:
    """Read a sensor of a room, now or averaged over the past hours.

    Args:
        room: which room of the house
        kind: what to measure
        hours: average over so many past hours; 0 for the value of this moment
    """
    return f"{room} {kind}: 21 ({hours})"


@tool
def start_robot(kind: Literal["vacuum", "mower", "mop"], area: str = "all", minutes: int = 45) -> str:
    """Start one of the household's robots.

    Args:
        kind: which robot
        area: where it works: name of a room or a part of the garden, or "all"
        minutes: after how long it comes back at the latest
    """
    return f"{kind} in {area} for {minutes}"


TOOLS: tuple[Tool, ...] = (
    get_weather, set_light, set_heating, water_bed, play_music, send_message, add_event, list_events, add_to_list, lock_door,
    read_sensor, start_robot,
)  # fmt: skip
