// The served page: xterm.js from textual-serve, connected by our own hand.
//
// textual-serve's script keeps its session object to itself, and connects it without a word when a connection is lost,
// opens whatever link it is told to, and measures letters before their font is there. So its session is caught when it is
// made, and gets another `connect`.
"use strict";
(() => {
  const ENDED = 4000, TAKEN_OVER = 4001, FAILED = 4002, STOPPED = 4003;
  const LEAST_COLUMNS = 40, CELL = 0.602; // a letter's width, in font sizes
  const byId = (id) => document.getElementById(id);
  let session = null, terminal = null, socket = null, control = false, opened = false;

  // The first object that is given a `terminal` with these parts is the session.
  Object.defineProperty(Object.prototype, "terminal", {
    configurable: true,
    set(value) {
      Object.defineProperty(this, "terminal", { value, writable: true, enumerable: true, configurable: true });
      if (session === null && value && value.parser && value.options) {
        delete Object.prototype.terminal;
        session = this;
        terminal = value;
        session.connect = begin;
      }
    },
  });

  async function begin() {
    session.socket = { send: fromTerminal };
    await Promise.all(["16px", "bold 16px", "italic 16px"].map((font) => document.fonts.load(font + " 'Roboto Mono'")));
    terminal.options.theme = { background: getComputedStyle(document.body).backgroundColor };
    terminal.options.fontFamily = "'Roboto Mono', monospace";
    terminal.parser.registerOscHandler(52, toClipboard);
    if (new URLSearchParams(location.search).has("reader")) readAloud();
    resize();
    connect();
  }

  function connect() {
    if (socket) return;
    show("Starting...");
    const url = new URL("ws", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = new URLSearchParams({ width: terminal.cols, height: terminal.rows }).toString();
    terminal.reset();
    opened = false;
    const mine = (socket = new WebSocket(url));
    mine.binaryType = "arraybuffer";
    mine.addEventListener("open", () => { opened = true; terminal.focus(); send("focus"); });
    mine.addEventListener("message", (event) => {
      if (typeof event.data === "string") obey(JSON.parse(event.data));
      else terminal.write(new Uint8Array(event.data), hideNotice);
    });
    mine.addEventListener("close", (event) => { socket = null; explain(event); });
  }

  function send(kind, value) {
    if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(value === undefined ? [kind] : [kind, value]));
  }

  // What the terminal sends, on its way: Ctrl of the key bar holds for one letter.
  function fromTerminal(text) {
    const [kind, value] = JSON.parse(text);
    if (kind === "stdin" && control && /^[a-z@[\\\]^_ ]$/i.test(value)) {
      hold(false);
      send(kind, String.fromCharCode(value.toUpperCase().charCodeAt(0) & 31));
    } else send(kind, value);
  }

  function obey([kind, value]) {
    if (kind === "deliver_file_start") {
      const link = document.createElement("a");
      link.href = "download/" + encodeURIComponent(value);
      link.download = "";
      link.click();
    } else if (kind === "open_url" && /^(https?:\/\/|mailto:)/i.test(value)) {
      ask("Open this link?\n" + value, "Open", () => window.open(value, "_blank", "noopener,noreferrer"));
    }
  }

  // OSC 52, to the clipboard only: a program may not read it. Browsers that want a touch first get one.
  function toClipboard(data) {
    const [, encoded] = data.split(";");
    if (!encoded || encoded === "?") return true;
    let text;
    try {
      text = new TextDecoder().decode(Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0)));
    } catch { return true; }
    const byHand = () => ask("The browser wants a touch before it copies.", "Copy", () => { if (!copyOld(text)) navigator.clipboard?.writeText(text); });
    if (navigator.clipboard) navigator.clipboard.writeText(text).catch(byHand);
    else if (!copyOld(text)) byHand();
    return true;
  }

  function copyOld(text) { // without https there is no navigator.clipboard, except on this very machine
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    terminal.focus();
    return done;
  }

  function ask(text, yes, act) {
    byId("ask-text").textContent = text;
    byId("ask-yes").textContent = yes;
    byId("ask-yes").onclick = () => { byId("ask").hidden = true; act(); terminal.focus(); };
    byId("ask-no").onclick = () => { byId("ask").hidden = true; terminal.focus(); };
    byId("ask").hidden = false;
  }

  function show(text, button) {
    byId("notice-text").textContent = text;
    byId("again").hidden = !button;
    if (button) byId("again").textContent = button;
    byId("notice").hidden = false;
    if (button) byId("again").focus();
  }

  function hideNotice() { if (socket) byId("notice").hidden = true; }

  function explain({ code, reason }) {
    byId("ask").hidden = true;
    if (code === ENDED) show("The chat has ended. It is kept.", "Start again");
    else if (code === TAKEN_OVER) show("The chat goes on in another window.", "Go on here");
    else if (code === FAILED) show("The chat could not go on: " + reason, "Start again");
    else if (code === STOPPED) show("Sprig was stopped. When it is started again, open the address that it prints.", "Reconnect");
    else if (opened) show("The connection is lost. The chat waits for two minutes.", "Reconnect");
    else show("Sprig does not answer. If it was started anew, open the address that it printed.", "Reconnect");
  }

  const lost = () => socket === null && opened && byId("again").textContent === "Reconnect";
  function back() { if (terminal && document.visibilityState === "visible" && lost()) connect(); }

  function resize() {
    const view = window.visualViewport; // an on-screen keyboard makes it lower than the window
    document.body.style.height = (view ? view.height : window.innerHeight) + "px";
    window.scrollTo(0, 0);
    if (!session) return;
    const size = Math.max(9, Math.min(16, Math.floor(window.innerWidth / LEAST_COLUMNS / CELL * 2) / 2));
    if (terminal.options.fontSize !== size) terminal.options.fontSize = size;
    session.fit();
  }

  function readAloud() {
    terminal.options.screenReaderMode = true;
    byId("reader").textContent = "The screen reader mode is on";
  }

  function hold(on) {
    control = on;
    byId("control").setAttribute("aria-pressed", String(on));
  }

  document.addEventListener("DOMContentLoaded", () => {
    byId("again").onclick = connect;
    byId("reader").onclick = () => { readAloud(); terminal.focus(); };
    byId("control").onclick = () => hold(!control);
    for (const kind of ["pointerdown", "mousedown"]) // the terminal keeps the focus, and so the keyboard stays
      byId("keys").addEventListener(kind, (event) => event.preventDefault());
    byId("keys").addEventListener("click", (event) => {
      const key = event.target.dataset.key;
      terminal.focus();
      if (key) send("stdin", key);
    });
    document.addEventListener("visibilitychange", back);
    window.addEventListener("online", back);
    window.addEventListener("resize", resize);
    if (window.visualViewport) window.visualViewport.addEventListener("resize", resize);
  });
})();
