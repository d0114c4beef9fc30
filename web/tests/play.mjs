// What the browser tests share: a `calm play` on a free port, a Chromium, and the colours of a screenshot.
//
// CALM_BINARY: the program (default: the release build). CALM_POLICY: the policy to play; where there is none, one that
// make_test_policy, beside the program, writes. CALM_SCREENSHOTS: folder that keeps the pictures.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = fileURLToPath(new URL("../..", import.meta.url));
const binary = process.env.CALM_BINARY ?? path.join(root, "build/release/bin/calm");
const browserPath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const screenshots = process.env.CALM_SCREENSHOTS;

// Why the tests cannot run here; nothing if they can.
export const cannotRun = !existsSync(binary)
  ? `${binary} is not built; see CALM_BINARY`
  : !existsSync(browserPath)
    ? `no browser at ${browserPath}; install Debian's chromium`
    : undefined;

const folder = mkdtempSync(path.join(tmpdir(), "calm-browser-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

// The policy that holds poses and does nothing else: what it does is known.
export function testPolicy() {
  const file = path.join(folder, "policy.safetensors");
  if (!existsSync(file)) {
    const tool = path.join(path.dirname(binary), "make_test_policy");
    const made = spawnSync(tool, [path.join(root, "assets/characters/human.xml"), file], { encoding: "utf8" });
    if (made.status !== 0) throw new Error(`${tool}: ${made.error ?? made.stderr}`);
  }
  return file;
}

// A folder with two state machines for that policy, and one for another.
export function testMachines() {
  const machines = path.join(folder, "machines");
  mkdirSync(machines, { recursive: true });
  const machine = (name, clip, when) => writeFileSync(path.join(machines, `${name}.yaml`), [
    `machine: ${name}`, "start: begin", "states:",
    `  begin:`, `    act: ${clip}`, `    until:`, `      - {when: ${when}, go: done}`,
    `  done:`, `    act: stand`, `    final: true`, ""].join("\n"));
  machine("arms", "bend left_shoulder", "time > 0.5 s");
  machine("wait", "bend left_shoulder", "target down");
  machine("other", "somersault", "time > 0.5 s");
  return machines;
}

// The trained policy, if there is one.
export function trainedPolicy() {
  const policy = process.env.CALM_POLICY ?? path.join(root, "assets/policies/human");
  return existsSync(policy) ? policy : undefined;
}

// Starts `calm play`; resolves once it serves.
export async function startServer(policy, ...options) {
  const child = spawn(binary, ["play", policy, "--headless", ...options], { cwd: root });
  let output = "";
  let errors = "";
  child.stderr.on("data", (data) => (errors += data));
  const ended = new Promise((resolve) => child.on("close", (code) => resolve(code)));
  const url = await new Promise((resolve, reject) => {
    child.stdout.on("data", (data) => {
      output += data;
      const match = /^serving (http:\S+)$/m.exec(output);
      if (match) resolve(match[1]);
    });
    child.on("error", reject);
    ended.then((code) => reject(new Error(`calm play ended with ${code}: ${errors}`)));
  });
  return {
    url,
    port: Number(new URL(url).port),
    output: () => output,
    ended,
    // Ends it as Ctrl-C does; resolves to the exit code.
    stop: () => {
      child.kill("SIGINT");
      return ended;
    },
  };
}

export function startBrowser() {
  return chromium.launch({
    executablePath: browserPath,
    args: [
      "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
      // WebGL without a graphics card
      "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
    ],
  });
}

// Opens the page and waits until poses arrive. `problems` collects what the page complains about. The cheapest picture
// will do for most tests: without a graphics card a good one takes its time.
export async function openPage(browser, url, { quality = 3, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 720 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(90000);
  page.setDefaultNavigationTimeout(90000);
  const problems = [];
  page.on("console", (message) => {
    // Chromium's remarks on its own software drawing are not the page's
    if (["error", "warning"].includes(message.type()) && !/GPU stall|GL Driver Message|swiftshader/i.test(message.text()))
      problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(`${url}?quality=${quality}`);
  await page.waitForFunction(() => window.calm?.frames > 0, undefined, { polling: 50 });
  return { page, context, problems };
}

export const state = (page) => page.evaluate(() => ({ ...window.calm.status, tick: window.calm.tick,
  time: window.calm.time, epoch: window.calm.epoch, speed: window.calm.speed, height: window.calm.height,
  frames: window.calm.frames, connected: window.calm.connected, poses: window.calm.poses,
  target: window.calm.target }));

// Waits until the page has drawn what has arrived.
export const drawn = (page) =>
  page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done()))));

// Waits until the root rests on the screen: nothing moves and the camera has followed.
export async function settled(page) {
  const place = () => page.evaluate(() => window.calm.root_on_screen);
  let last = await place();
  for (let still = 0; still < 3;) {
    await page.waitForTimeout(150);
    await drawn(page);
    const now = await place();
    still = Math.hypot(now.x - last.x, now.y - last.y) < 0.5 ? still + 1 : 0;
    last = now;
  }
}

// A picture of the page as {width, height, data: RGBA}; kept under `name` if CALM_SCREENSHOTS names a folder.
export async function picture(page, name) {
  await drawn(page);
  const options = { type: "png" };
  if (screenshots) {
    mkdirSync(screenshots, { recursive: true });
    options.path = path.join(screenshots, `${name}.png`);
  }
  const png = await page.screenshot(options);
  const decoded = await page.evaluate(async (base64) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height);
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    const { data } = pen.getImageData(0, 0, image.width, image.height);
    let text = "";
    for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
    return { width: image.width, height: image.height, base64: btoa(text) };
  }, png.toString("base64"));
  return { width: decoded.width, height: decoded.height, data: Buffer.from(decoded.base64, "base64") };
}

// Share of the pixels of a box for which `is(r, g, b)` holds.
export function share(image, { x, y, width, height }, is) {
  let hits = 0;
  let all = 0;
  for (let py = Math.max(Math.round(y), 0); py < Math.min(y + height, image.height); ++py)
    for (let px = Math.max(Math.round(x), 0); px < Math.min(x + width, image.width); ++px) {
      const i = 4 * (py * image.width + px);
      ++all;
      if (is(image.data[i], image.data[i + 1], image.data[i + 2])) ++hits;
    }
  return all ? hits / all : 0;
}

// The shirt and skin of assets/characters/human.xml; ground, sky and panels are bluish.
export const warm = (r, g, b) => r > g + 8 && g >= b - 4 && r - b > 36;
