// Ties the parts together: messages in, picture and readings out, buttons and keys to commands.
import "./style.css";
import { Chart } from "./chart";
import { ClipList } from "./clips";
import { Connection } from "./connection";
import { Playback } from "./playback";
import type { Frame, SceneMessage, ServerMessage, StatusMessage } from "./protocol";
import { Stage } from "./stage";

const element = <T extends HTMLElement = HTMLElement>(id: string): T => {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element #${id}`);
  return found as T;
};

const kPingEvery = 1000; // ms
const kTrailEvery = 2; // frames

const canvas = element<HTMLCanvasElement>("view");
const reduced = window.matchMedia("(prefers-reduced-motion: reduce)");

let scene: SceneMessage | null = null;
let status: StatusMessage | null = null;
let playback: Playback | null = null;
let latency: number | null = null;
let frames = 0;
let epoch = -1;
let retryAt = 0;
let toastTimer = 0;

// --- picture ---

let stage: Stage | null = null;
try {
  // ?quality=3 begins with the cheapest picture; otherwise it goes down by itself where drawing is slow
  const quality = Number(new URLSearchParams(window.location.search).get("quality") ?? 0);
  stage = new Stage(canvas, () => reduced.matches, quality);
} catch {
  showMessage("This browser cannot draw in 3D",
    "WebGL is switched off or missing. Enable hardware acceleration, or use another browser.", false);
}
const chart = new Chart(element("plot"));

function layout(): void {
  const panel = element("clips").getBoundingClientRect();
  const toolbar = element("toolbar").getBoundingClientRect();
  const beside = panel.left > window.innerWidth / 2; // or, on a narrow screen, below
  stage?.resize(window.innerWidth, window.innerHeight, {
    left: 0,
    right: beside ? window.innerWidth - panel.left : 0,
    top: element("hud").getBoundingClientRect().bottom,
    bottom: window.innerHeight - toolbar.top,
  });
}
new ResizeObserver(layout).observe(document.body);
new ResizeObserver(layout).observe(element("clips"));
canvas.addEventListener("pointerdown", () => stage?.keepView());
canvas.addEventListener("wheel", () => stage?.keepView(), { passive: true });
reduced.addEventListener("change", () => window.location.reload());

let lastDraw = performance.now();
function draw(now: number): void {
  window.requestAnimationFrame(draw);
  const elapsed = (now - lastDraw) / 1000;
  lastDraw = now;
  const pose = playback?.advance(elapsed);
  if (pose) stage?.setPose(pose, playback!.newest!.forces);
  stage?.render(elapsed);
  chart.draw(now);
  if (!element("gone").hidden && retryAt > 0) showCountdown(now);
}

// --- messages ---

const connection = new Connection(
  `${window.location.protocol === "https:" ? "wss" : "ws"}://${window.location.host}/ws`, {
    open: () => {
      setConnection("live");
      retryAt = 0;
      if (stage) element("gone").hidden = true;
    },
    message: receive,
    frame: show,
    lost: (at, everOpen) => {
      retryAt = at;
      latency = null;
      element("latency").textContent = "–";
      setConnection(everOpen ? "lost" : "connecting");
      showMessage(everOpen ? "Connection lost" : "No simulation yet",
        everOpen ? "The server has stopped or cannot be reached. Is calm play still running?"
                 : "The server does not answer. Start it with ./calm demo or calm play.", true);
    },
  });

function receive(message: ServerMessage): void {
  switch (message.type) {
    case "scene":
      scene = message;
      playback = new Playback(message.bodies.length, 1 / message.control_rate);
      epoch = -1;
      stage?.setScene(message);
      layout();
      chart.clear();
      clips.set(message.clips);
      showMachines(message.machines);
      element("character").textContent = message.character;
      document.title = `CALM · ${message.character}`;
      break;
    case "status":
      status = message;
      showStatus(message);
      break;
    case "pong":
      latency = performance.now() - message.t;
      element("latency").textContent = latency < 10 ? latency.toFixed(1) : latency.toFixed(0);
      break;
    case "error":
      toast(message.message);
      break;
  }
}

function show(frame: Frame): void {
  if (!playback) return;
  ++frames;
  playback.push(frame);
  if (frame.epoch !== epoch) {
    epoch = frame.epoch;
    stage?.clearTrail();
  }
  if (frames % kTrailEvery === 0) stage?.addTrailPoint(frame.poses[0]!, frame.poses[1]!);
  stage?.setTarget(frame.target);
  chart.add(frame.time, frame.speed, frame.height);
  element("speed").textContent = frame.speed.toFixed(2);
  element("height").textContent = frame.height.toFixed(2);
  element("time").textContent = frame.time.toFixed(1);
}

// One button a machine, above the clips; none where there is no high-level policy.
function showMachines(names: string[]): void {
  element("machines").hidden = names.length === 0;
  element("machine-list").replaceChildren(...names.map((name) => {
    const button = document.createElement("button");
    button.className = "clip";
    button.dataset.machine = name;
    button.setAttribute("aria-pressed", "false");
    const label = document.createElement("span");
    label.className = "label";
    label.textContent = name.replaceAll("_", " ");
    button.append(label);
    button.addEventListener("click", () => connection.send({ type: "machine", machine: name }));
    return button;
  }));
}

function showStatus(now: StatusMessage): void {
  clips.setActive(now.machine === null ? now.clip : null);
  for (const button of element("machine-list").querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.dataset.machine === now.machine));
  element("machine-state").hidden = now.machine === null;
  element("machine-state").textContent =
    now.machine === null ? "" : `${now.machine}: ${now.state} (${(now.clip ?? "").replaceAll("_", " ")})`;
  const pause = element("pause");
  pause.setAttribute("aria-pressed", String(now.paused));
  pause.querySelector(".label")!.textContent = now.paused ? "Resume" : "Pause";
  element("auto-reset").setAttribute("aria-pressed", String(now.auto_reset));
  element("falls").textContent = String(now.falls);
  element("fallen").hidden = !now.fallen;
  if (connection.connected) setConnection(now.paused ? "paused" : "live");
}

function setConnection(state: "connecting" | "live" | "paused" | "lost"): void {
  const chip = element("connection");
  chip.dataset.state = state;
  if (chip.textContent !== state) chip.textContent = state;
}

function showMessage(title: string, text: string, canRetry: boolean): void {
  element("gone-title").textContent = title;
  element("gone-text").textContent = text;
  element("retry").hidden = !canRetry;
  element("gone").hidden = false;
}

function showCountdown(now: number): void {
  const seconds = Math.ceil((retryAt - now) / 1000);
  const text = seconds > 0 ? `Retry now (trying in ${seconds} s)` : "Connecting…";
  const button = element("retry");
  if (button.textContent !== text) button.textContent = text;
}

function toast(text: string): void {
  const box = element("toast");
  box.textContent = text;
  box.hidden = false;
  window.clearTimeout(toastTimer);
  toastTimer = window.setTimeout(() => (box.hidden = true), 4000);
}

// --- commands ---

const clips = new ClipList(element("clip-list"), element("search-row"), element<HTMLInputElement>("search"),
  element("clip-count"), (clip) => connection.send({ type: "command", clip }));

const actions: Record<string, () => void> = {
  pause: () => connection.send({ type: "pause", paused: !(status?.paused ?? false) }),
  step: () => connection.send({ type: "step" }),
  reset: () => connection.send({ type: "reset" }),
  push: () => connection.send({ type: "push" }),
  "auto-reset": () => connection.send({ type: "auto_reset", on: !(status?.auto_reset ?? false) }),
  contacts: () => {
    const on = element("contacts").getAttribute("aria-pressed") !== "true";
    stage?.showContacts(on);
    element("contacts").setAttribute("aria-pressed", String(on));
  },
  retry: () => connection.connect(),
};
for (const [id, action] of Object.entries(actions)) element(id).addEventListener("click", action);

// after a click with the mouse, space pauses again; who walks the buttons with Tab keeps the focus
document.addEventListener("click", (event) => {
  if (event.detail > 0) (event.target as HTMLElement).closest("button")?.blur();
});

const keys: Record<string, string> = { " ": "pause", ".": "step", r: "reset", p: "push", a: "auto-reset", c: "contacts" };
window.addEventListener("keydown", (event) => {
  const target = event.target as HTMLElement;
  if (event.ctrlKey || event.metaKey || event.altKey || target.tagName === "INPUT") return;
  // space and enter belong to the button that has the focus
  if (event.key === " " && target.tagName === "BUTTON") return;
  if (event.key === "/") {
    clips.focusSearch();
  } else if (/^[1-9]$/.test(event.key)) {
    const clip = clips.nth(Number(event.key));
    if (clip !== undefined) connection.send({ type: "command", clip });
  } else {
    const action = actions[keys[event.key.toLowerCase()] ?? ""];
    if (!action) return;
    action();
  }
  event.preventDefault();
});

window.setInterval(() => connection.send({ type: "ping", t: performance.now() }), kPingEvery);

// --- for tests and the curious: what the page knows, read-only ---

declare global {
  interface Window {
    readonly calm: object;
  }
}
Object.defineProperty(window, "calm", {
  value: Object.freeze({
    get connected() { return connection.connected; },
    get frames() { return frames; },
    get tick() { return playback?.newest?.tick ?? -1; },
    get time() { return playback?.newest?.time ?? 0; },
    get epoch() { return epoch; },
    get speed() { return playback?.newest?.speed ?? 0; },
    get height() { return playback?.newest?.height ?? 0; },
    get poses() { return [...(playback?.newest?.poses ?? [])]; },
    get status() { return status && { ...status }; },
    get character() { return scene?.character ?? null; },
    get bodies() { return scene?.bodies.map((body) => body.name) ?? []; },
    get machines() { return scene?.machines ?? []; },
    get target() { return playback?.newest?.target ? [...playback.newest.target.pose] : null; },
    get clips() { return scene?.clips.map((clip) => clip.name) ?? []; },
    get latency() { return latency; },
    get root_on_screen() { return stage?.rootOnScreen() ?? null; },
  }),
});

layout();
window.requestAnimationFrame(draw);
