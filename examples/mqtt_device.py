"""A lamp over MQTT: the model switches it and reads what it last said of itself.

    python examples/mqtt_device.py MODEL [BROKER[:PORT]] [REQUEST]

It publishes to sprig/lamp/set, like {"on": true, "brightness": 40}, and listens to sprig/lamp/state.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Annotated, Any

from model import chosen_model

from agent import Agent, Bounds, Limits, tool

try:
    import paho.mqtt.client as mqtt
except ImportError:
    sys.exit("this example speaks MQTT through a package that is not installed: pip install paho-mqtt")

state, heard, ready = {"text": "unknown: the lamp has said nothing yet"}, threading.Event(), threading.Event()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)


@client.connect_callback()
def connected(client: mqtt.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
    client.subscribe("sprig/lamp/state")


@client.subscribe_callback()
def subscribed(client: mqtt.Client, data: Any, number: int, reasons: Any, properties: Any) -> None:
    ready.set()


@client.message_callback()
def message(client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
    state["text"] = message.payload.decode("utf-8", "replace")
    heard.set()


@tool
def set_lamp(on: bool, brightness: Annotated[int, Bounds(ge=0, le=100)] = 100) -> str:
    """Switch the lamp.

    Args:
        on: true is on, false is off
        brightness: percent
    """
    heard.clear()
    client.publish("sprig/lamp/set", json.dumps({"on": on, "brightness": brightness}), qos=1).wait_for_publish(5)
    return f"the lamp says {state['text']}" if heard.wait(2) else "sent; the lamp has not answered"


@tool
def lamp_state() -> str:
    """Tell what the lamp last said of itself."""
    return state["text"]


host, _, port = (sys.argv[2] if len(sys.argv) > 2 else "localhost").partition(":")
model, request = chosen_model(), " ".join(sys.argv[3:]) or "Turn the lamp on at 40 percent."
try:
    client.connect(host, int(port or 1883))
except OSError as e:
    sys.exit(f"no broker answers at {host}:{port or 1883} ({e}); name one: python examples/mqtt_device.py MODEL HOST:PORT")
client.loop_start()
if not ready.wait(10):
    sys.exit(f"the broker at {host} did not let us subscribe to sprig/lamp/state")
with Agent(model, tools=[set_lamp, lamp_state], limits=Limits(rounds=3, tokens=80), sampling={"temperature": 0}) as agent:
    result = agent.run(request, tool_choice="auto" if sys.argv[3:] else "set_lamp")
for done in result.calls:
    print(f"{done.call.name}({dict(done.call.arguments)}): {done.text}")
print(result.text)
client.disconnect()
client.loop_stop()
