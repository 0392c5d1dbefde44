"""Firefox, driven by WebDriver BiDi: it speaks that itself, so no other program stands between."""

import json
import subprocess
from pathlib import Path
from typing import Any

import websocket

# A proxy that nobody answers for cuts the network; this machine's own addresses do not go through it.
SETTINGS = {
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "remote.active-protocols": 1,
}
KEYS = {"right": "\ue014", "home": "\ue011", "down": "\ue015", "enter": "\ue007"}


class Firefox:
    """A running Firefox with one page.

    Args:
        program: Where it is.
        profile: An empty folder for its settings.
    """

    def __init__(self, program: str, profile: Path) -> None:
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in SETTINGS.items()]
        (profile / "user.js").write_text("\n".join(lines))
        command = [program, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        said = next((line for line in self.process.stderr if "WebDriver BiDi listening on" in line), None)
        assert said, f"{program} ended without a word of WebDriver BiDi"
        self.socket = websocket.create_connection(f"{said.split()[-1]}/session", timeout=60, suppress_origin=True)
        self.events: list[dict[str, Any]] = []
        self.calls = 0
        self.call("session.new", capabilities={})
        self.page = self.call("browsingContext.getTree")["contexts"][0]["context"]
        self.call("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command, keep the events that come before its answer, and return that."""
        self.calls += 1
        self.socket.send(json.dumps({"id": self.calls, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.calls:
                assert message["type"] == "success", message
                return message["result"]
            self.events.append(message)

    def open(self, address: str) -> None:
        for place in ("about:blank", address):  # so that the page before asks for nothing any more
            self.events.clear()
            self.call("browsingContext.navigate", context=self.page, url=place, wait="complete")

    def value(self, script: str) -> Any:
        """What an expression gives, or what its promise comes to."""
        expression = f"Promise.resolve({script}).then(JSON.stringify)"
        answer = self.call("script.evaluate", expression=expression, target={"context": self.page}, awaitPromise=True)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return json.loads(answer["result"].get("value", "null"))

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, by their names or as the letters they type."""
        strokes = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keys", "actions": strokes}
        self.call("input.performActions", context=self.page, actions=[source])

    def seen(self, method: str) -> list[dict[str, Any]]:
        """The events of one kind since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
