// Clicks through the page of `calm play` in a real browser.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { cannotRun, openPage, picture, settled, share, startBrowser, startServer, state, testMachines, testPolicy,
  trainedPolicy, warm }
  from "./play.mjs";

const until = (page, condition, argument) => page.waitForFunction(condition, argument, { polling: 50 });

// Of the figure around the root, px.
const aroundRoot = async (page, width = 160, height = 240) => {
  const { x, y } = await page.evaluate(() => window.calm.root_on_screen);
  return { x: x - width / 2, y: y - height / 2, width, height };
};

const phone = { quality: 1, viewport: { width: 390, height: 844 }, deviceScaleFactor: 1, hasTouch: true };

// Freezes the simulation and waits until the camera has come to rest, so that a picture and the root's place on the
// screen are of one moment.
const freeze = async (page) => {
  if (!(await state(page)).paused) await page.keyboard.press(" ");
  await until(page, () => window.calm.status.paused);
  await settled(page);
};

describe("the page of calm play", { skip: cannotRun }, () => {
  let browser, server, desktop;
  before(async () => {
    browser = await startBrowser();
    server = await startServer(testPolicy(), "--port", "0", "--machines", testMachines());
    desktop = await openPage(browser, server.url);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  // Runs on the one page of 1280 x 720, from a running, standing character on.
  const onDesktop = async (run) => {
    const { page, problems } = desktop;
    await resume();
    const { resets } = await state(page);
    await page.keyboard.press("r");
    await until(page, (n) => window.calm.status.resets > n, resets);
    await run(page);
    assert.deepEqual(problems.splice(0), [], "the page complains");
  };
  const resume = async () => {
    const { page } = desktop;
    await page.evaluate(() => document.activeElement?.blur());
    if (await page.evaluate(() => window.calm.status.paused)) await page.keyboard.press(" ");
    await until(page, () => !window.calm.status.paused);
  };

  // Runs on a page of its own.
  const onOwnPage = async (options, run) => {
    await resume();
    const { page, context, problems } = await openPage(browser, server.url, options);
    try {
      await run(page);
      assert.deepEqual(problems, [], "the page complains");
    } finally {
      await context.close();
    }
  };

  test("draws the character near the middle of the free part", () => onOwnPage({ quality: 0 }, async (page) => {
    await freeze(page);
    await page.keyboard.press("r");
    await settled(page);
    const image = await picture(page, "desktop");
    const box = await aroundRoot(page);
    assert.ok(box.x > 300 && box.x + box.width < 980, `the character stands at ${box.x}`);
    assert.ok(share(image, box, warm) > 0.05, `character colours: ${share(image, box, warm)}`);
    const away = { x: 40, y: 200, width: 200, height: 200 };
    assert.ok(share(image, away, warm) < 0.005, "character colours where there is no character");
    // the ground is lit, patterned and not one flat colour
    const colours = new Set();
    for (let i = 0; i < image.data.length; i += 4 * 97)
      colours.add((image.data[i] << 16) | (image.data[i + 1] << 8) | image.data[i + 2]);
    assert.ok(colours.size > 100, `${colours.size} colours`);
  }));

  test("shows readings, chart and connection", () => onDesktop(async (page) => {
    const first = await state(page);
    assert.equal(await page.textContent("#connection"), "live");
    assert.equal(await page.textContent("#character"), "human");
    assert.equal(first.connected, true);
    await until(page, () => window.calm.latency !== null && document.getElementById("latency").textContent !== "–");
    assert.match(await page.textContent("#height"), /^[01]\.\d\d$/);
    assert.match(await page.textContent("#speed"), /^\d+\.\d\d$/);
    await until(page, (tick) => window.calm.tick > tick + 5, first.tick);
    const line = await page.evaluate(() => {
      const canvas = document.querySelector("#plot canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let teal = 0;
      for (let i = 0; i < data.length; i += 4)
        if (data[i + 3] > 128 && data[i + 1] > data[i] + 60 && data[i + 1] > 150) ++teal;
      return teal;
    });
    assert.ok(line > 5, `the chart's line of speed has ${line} pixels`);
  }));

  test("runs in real time", () => onDesktop(async (page) => {
    const a = await page.evaluate(() => [performance.now(), window.calm.time]);
    await page.waitForTimeout(1500);
    const b = await page.evaluate(() => [performance.now(), window.calm.time]);
    const rate = (b[1] - a[1]) / ((b[0] - a[0]) / 1000);
    assert.ok(rate > 0.5 && rate < 1.3, `simulated over real time: ${rate}`);
  }));

  test("a click on a clip commands it", () => onDesktop(async (page) => {
    const names = await page.evaluate(() => window.calm.clips);
    assert.equal(await page.locator("#clip-list .clip").count(), names.length);
    const bend = "bend left_shoulder"; // away from the body, where nothing is in the arm's way
    const before = await state(page);
    await page.locator(`#clip-list .clip[data-clip="${bend}"]`).click();
    await until(page, (name) => window.calm.status.clip === name, bend);
    assert.equal(await page.locator('#clip-list .clip[aria-pressed="true"]').getAttribute("data-clip"), bend);
    assert.equal(await page.locator('#clip-list .clip[aria-pressed="true"]').count(), 1);
    await until(page, (tick) => window.calm.tick > tick + 25, before.tick);
    // some body has moved against the root
    const after = await state(page);
    let most = 0;
    for (let i = 7; i < after.poses.length; i += 7)
      for (let k = 0; k < 3; ++k)
        most = Math.max(most, Math.abs(after.poses[i + k] - after.poses[k] - before.poses[i + k] + before.poses[k]));
    assert.ok(most > 0.05, `moved by ${most} m`);
    await page.keyboard.press("1");
    await until(page, () => window.calm.status.clip === window.calm.clips[0]);
  }));

  test("search narrows the list", () => onDesktop(async (page) => {
    const all = await page.locator("#clip-list .clip:visible").count();
    await page.keyboard.press("/");
    await page.keyboard.type("rest");
    assert.equal(await page.locator("#clip-list .clip:visible").count(), 1, "by tag");
    assert.equal(await page.textContent("#clip-count"), `1 of ${all}`);
    // letters typed there are no shortcuts
    assert.equal((await state(page)).paused, false);
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("#clip-list .clip:visible").count(), all);
  }));

  test("pause, step and resume", () => onDesktop(async (page) => {
    await page.locator("#pause").click();
    await until(page, () => window.calm.status.paused);
    assert.equal(await page.textContent("#pause .label"), "Resume");
    assert.equal(await page.textContent("#connection"), "paused");
    await page.waitForTimeout(200);
    const paused = await state(page);
    await page.waitForTimeout(400);
    assert.equal((await state(page)).tick, paused.tick, "it goes on while paused");
    await page.locator("#step").click();
    await until(page, (tick) => window.calm.tick === tick + 1, paused.tick);
    await page.keyboard.press(".");
    await until(page, (tick) => window.calm.tick === tick + 2, paused.tick);
    await page.locator("#pause").click();
    await until(page, (tick) => window.calm.tick > tick + 5, paused.tick);
    // the click has left no focus behind that would take the key
    await page.keyboard.press(" ");
    await until(page, () => window.calm.status.paused);
  }));

  test("a state machine directs until a clip is clicked", () => onDesktop(async (page) => {
    assert.deepEqual(await page.evaluate(() => window.calm.machines), ["arms", "wait"], "those that fit the policy");
    assert.equal((await state(page)).target, null);
    await page.locator('#machine-list [data-machine="wait"]').click();
    await until(page, () => window.calm.status.machine === "wait" && window.calm.target);
    assert.match(await page.textContent("#machine-state"), /^wait: begin/);
    assert.equal(await page.getAttribute('#machine-list [data-machine="wait"]', "aria-pressed"), "true");
    const { target, poses } = await state(page);
    const away = Math.hypot(target[0] - poses[0], target[1] - poses[1]);
    assert.ok(away > 2 && away < 6 && target[2] > 0.8, `a pillar ${away} m away, ${target[2]} m high`);
    await picture(page, "machine");
    await page.locator('#machine-list [data-machine="arms"]').click();
    await until(page, () => window.calm.status.machine === "arms" && window.calm.status.state === "done");
    assert.ok((await state(page)).target[2] < 0.1, "a place on the ground");
    await page.locator("#clip-list .clip").first().click();
    await until(page, () => window.calm.status.machine === null);
    await until(page, () => window.calm.target === null);
    assert.equal(await page.locator("#machine-state").isVisible(), false);
  }));

  test("push and reset", () => onDesktop(async (page) => {
    for (let i = 0; i < 6; ++i) await page.locator("#push").click();
    await until(page, () => window.calm.speed > 0.5);
    const before = await state(page);
    await page.locator("#reset").click();
    await until(page, (resets) => window.calm.status.resets === resets + 1, before.resets);
    const after = await state(page);
    assert.notEqual(after.epoch, before.epoch);
    assert.ok(Math.hypot(after.poses[0], after.poses[1]) < 0.5, "it is back where it began");
  }));

  test("auto reset and contacts are toggles", () => onDesktop(async (page) => {
    await page.locator("#auto-reset").click();
    await until(page, () => window.calm.status.auto_reset);
    assert.equal(await page.getAttribute("#auto-reset", "aria-pressed"), "true");
    await page.keyboard.press("a");
    await until(page, () => !window.calm.status.auto_reset);
    await page.locator("#contacts").click();
    assert.equal(await page.getAttribute("#contacts", "aria-pressed"), "true");
  }));

  test("the mouse turns and zooms the view", () => onDesktop(async (page) => {
    await freeze(page);
    const before = await picture(page, "view-before");
    await page.mouse.move(400, 420);
    await page.mouse.down();
    await page.mouse.move(560, 400, { steps: 2 });
    await page.mouse.up();
    await page.mouse.wheel(0, -400);
    await settled(page);
    const after = await picture(page, "view-turned");
    let changed = 0;
    for (let i = 0; i < before.data.length; i += 4) changed += Math.abs(before.data[i] - after.data[i]) > 12;
    assert.ok(changed > 0.05 * (before.data.length / 4), `${changed} pixels changed`);
    assert.ok(share(after, await aroundRoot(page), warm) > 0.05, "the character is still in the middle");
  }));

  test("fits a phone", () => onOwnPage(phone, async (page) => {
    await freeze(page);
    await page.keyboard.press("r");
    await settled(page);
    const image = await picture(page, "phone");
    const box = await aroundRoot(page, 100, 140);
    assert.ok(box.x > 0 && box.x + box.width < 390 && box.y > 80, "the character stands outside the free part");
    assert.ok(share(image, box, warm) > 0.05, `character colours: ${share(image, box, warm)}`);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(overflow <= 0, `${overflow} px too wide`);
    // every button lies on the screen and none on another
    const boxes = await page.evaluate(() => [...document.querySelectorAll("#toolbar button, #hud dd, #connection")]
      .map((e) => { const b = e.getBoundingClientRect(); return [e.id || e.textContent, b.left, b.top, b.right, b.bottom]; }));
    for (const [name, left, top, right, bottom] of boxes)
      assert.ok(left >= 0 && top >= 0 && right <= 390 && bottom <= 844, `${name} is cut off`);
    for (const a of boxes)
      for (const b of boxes)
        assert.ok(a === b || a[1] >= b[3] || b[1] >= a[3] || a[2] >= b[4] || b[2] >= a[4], `${a[0]} lies on ${b[0]}`);
    await page.locator("#clip-list .clip").nth(1).click();
    await until(page, () => window.calm.status.clip === window.calm.clips[1]);
  }));

  test("every control has a name and can be reached by keyboard", () => onOwnPage({ reducedMotion: "reduce" }, async (page) => {
    const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input")]
      .filter((e) => e.offsetParent && !(e.textContent.trim() || e.closest("label")?.textContent.trim()))
      .map((e) => e.outerHTML));
    assert.deepEqual(nameless, []);
    await page.locator("#pause").focus();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.id), "step");
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, "none", "the focus cannot be seen");
  }));

  test("a second page sees what the first commands", () => onOwnPage({}, async (page) => {
    await desktop.page.keyboard.press("2");
    await until(page, () => window.calm.status.clip === window.calm.clips[1]);
    await page.keyboard.press("1");
    await until(desktop.page, () => window.calm.status.clip === window.calm.clips[0]);
  }));

  test("says when the server is gone, and comes back with it", async () => {
    const own = await startServer(testPolicy(), "--port", "0");
    const { page, context } = await openPage(browser, own.url);
    assert.equal(await own.stop(), 0);
    await page.locator("#gone").waitFor({ state: "visible" });
    assert.match(await page.textContent("#gone"), /Connection lost/);
    assert.equal(await page.textContent("#connection"), "lost");
    await picture(page, "gone");
    const again = await startServer(testPolicy(), "--port", String(own.port));
    await page.locator("#gone").waitFor({ state: "hidden" });
    const frames = (await state(page)).frames;
    await until(page, (n) => window.calm.frames > n + 3, frames);
    assert.equal(await page.textContent("#connection"), "live");
    await context.close();
    await again.stop();
  });
});

describe("calm play on the command line", { skip: cannotRun }, () => {
  test("ends after --seconds with a line that sums up", async () => {
    const server = await startServer(testPolicy(), "--port", "0", "--seconds", "1");
    assert.equal(await server.ended, 0);
    assert.match(server.output(), /^\d+ steps, [\d.]+ s simulated, \d+ falls, mean speed [\d.]+ m\/s$/m);
  });

  test("names a port that is taken", async () => {
    const server = await startServer(testPolicy(), "--port", "0");
    await assert.rejects(startServer(testPolicy(), "--port", String(server.port)),
      new RegExp(`ended with 1: calm: port ${server.port} .*--port`));
    await server.stop();
  });
});

const policy = trainedPolicy();
describe("the trained policy", { skip: cannotRun ?? (policy ? undefined : "there is none in this repository yet") }, () => {
  test("moves as it is told", async () => {
    const server = await startServer(policy, "--port", "0");
    const browser = await startBrowser();
    try {
      const { page, problems } = await openPage(browser, server.url);
      const clips = await page.evaluate(() => window.calm.clips);
      assert.ok(clips.length > 0, "no clips to command");
      for (const clip of clips.slice(0, 3)) {
        await page.locator(`#clip-list .clip[data-clip="${clip}"]`).click();
        await until(page, (name) => window.calm.status.clip === name, clip);
        await page.waitForTimeout(700);
      }
      // the classic machine, if there is a high-level policy: walks up to the pillar, kicks it down, celebrates
      if ((await page.evaluate(() => window.calm.machines)).includes("classic")) {
        await page.locator('#machine-list [data-machine="classic"]').click();
        await page.waitForFunction(() => window.calm.status.machine === "classic" && window.calm.status.state === "celebrate",
          undefined, { polling: 100, timeout: 240_000 });
        await picture(page, "classic");
      }
      await freeze(page);
      const image = await picture(page, "trained");
      assert.ok(share(image, await aroundRoot(page), warm) > 0.05, "the character is not in the picture");
      assert.deepEqual(problems, []);
    } finally {
      await browser.close();
      await server.stop();
    }
  });
});
