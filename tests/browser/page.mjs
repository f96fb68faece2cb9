// The page at `/` in a real browser, against a cluster of two workers and a spare. Called by tests/scripts/page_acceptance.sh:
//
//   node page.mjs ADDRESS WORKER-PIDS(comma) FOLDER-FOR-PICTURES
//
// ADDRESS is what `serve` printed, with the one-use key. Ends with status 0 only if all that is checked holds: no error on the
// console, no request to another host, and each step below.
import { chromium } from "playwright-core";
import { readFileSync } from "node:fs";

const [address, workers, pictures] = process.argv.slice(2);
const origin = new URL(address).origin;
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const context = await browser.newContext({ viewport: { width: 1280, height: 860 } });
const page = await context.newPage();
page.setDefaultTimeout(30_000);
const wrong = [];
page.on("console", (message) => {
  if (message.type() === "error") wrong.push(`console: ${message.text()}`);
});
page.on("pageerror", (error) => wrong.push(`page: ${error.message}`));
page.on("request", (request) => {
  if (new URL(request.url()).origin !== origin) wrong.push(`asked another host: ${request.url()}`);
});

let steps = 0;
async function step(name, does) {
  const begun = Date.now();
  try {
    await does();
  } catch (error) {
    await page.screenshot({ path: `${pictures}/failed.png` });
    console.error(`FAILED: ${name}\n${error.stack}\n${wrong.join("\n")}`);
    process.exit(1);
  }
  steps += 1;
  console.log(`${name}: ${((Date.now() - begun) / 1000).toFixed(1)} s`);
}

function check(holds, text) {
  if (!holds) throw new Error(text);
}

const ask = async (text) => {
  await page.fill("#question", text);
  await page.keyboard.press("Enter");
};
const lastText = () => page.locator("article.assistant .text").last().innerText();
const ended = () => page.waitForFunction(() => document.querySelector(".ask .primary").textContent === "Send", null, { timeout: 120_000 });
const grown = (characters) => page.waitForFunction((most) => (document.querySelector("article.assistant:last-of-type > .text")?.textContent.length ?? 0) > most, characters, { timeout: 60_000 });
const limit = async (tokens) => {
  await page.locator(".settings > summary").click();
  await page.fill("#max_tokens", String(tokens));
  await page.fill("#temperature", "0");
  await page.locator(".settings > summary").click();
};

await step("the address opens the cluster and its key goes off it", async () => {
  await page.goto(address);
  await page.waitForSelector(".pipeline .stage");
  check(!page.url().includes("key="), page.url());
  check((await page.locator(".pipeline:not(.next) .stage").count()) === 2, "two stages are drawn");
  check((await page.locator("table.workers tbody tr").count()) === 3, "three workers are listed");
});

await step("the key works once", async () => {
  const other = await browser.newContext();
  const second = await other.newPage();
  await second.goto(address);
  await second.waitForSelector("#cluster > .notice:not([hidden])");
  const text = await second.locator("#cluster > .notice").innerText();
  check(text.includes("woolly-coordinator page"), text);
  await other.close();
});

await step("an answer streams, with its figures", async () => {
  await page.click("#to-chat");
  await page.waitForFunction(() => document.querySelector("#model").options.length === 1);
  await limit(60);
  await ask("Name three uses for a brick.");
  await grown(20);
  await ended();
  const figures = await page.locator("article.assistant .figures").last().innerText();
  check(/\d+ tokens? · [\d.,]+ tokens\/s · first after/.test(figures), figures);
  check((await page.locator(".conversations li.present").innerText()).startsWith("Name three uses"), "it has a title");
});

await step("nothing moves while an answer grows", async () => {
  await limit(200);
  await ask("Tell a long story.");
  await grown(30);
  const moved = await page.evaluate(async () => {
    let sum = 0;
    const observer = new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
    });
    observer.observe({ type: "layout-shift", buffered: false });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    observer.disconnect();
    return sum;
  });
  check(moved < 0.02, `layout shift ${moved}`);
});

await step("an answer can be stopped and asked for again", async () => {
  if ((await page.locator(".ask .primary").innerText()) === "Stop") await page.locator(".ask .primary").click();
  await ended();
  const before = await page.locator("article.assistant").count();
  await limit(20);
  await page.locator("article.assistant").last().getByRole("button", { name: "Try again" }).click();
  await ended();
  check((await page.locator("article.assistant").count()) === before, "it took the place of the other");
});

await step("text is never markup", async () => {
  await page.getByRole("button", { name: "New conversation" }).click();
  await limit(5);
  await ask("<img src=x onerror=alert(1)><script>alert(2)</script> **bold**");
  await ended();
  const user = page.locator("article.user .text").last();
  check((await user.locator("img, script").count()) === 0, "no element was made of it");
  check((await user.innerText()).includes("<script>alert(2)</script>"), "it is shown as it is");
  const made = await page.evaluate(async () => {
    const { blocks, element } = await import("/page/markdown.js");
    const text = "# A\n\n- one\n- **two** `x<y`\n\n```js\nlet a = '<b>';\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[x](javascript:alert(1)) [y](https://example.org/) <script>1</script> ![p](https://example.org/p.png)";
    const where = document.createElement("div");
    where.append(...blocks(text).map((block) => element(block)));
    const links = [...where.querySelectorAll("a")].map((link) => link.href);
    return { links, kinds: [...where.children].map((child) => child.tagName), scripts: where.querySelectorAll("script, img").length, code: where.querySelector("pre").textContent };
  });
  check(made.scripts === 0 && !made.links.some((link) => link.startsWith("javascript")), JSON.stringify(made));
  check(made.kinds.join() === "H3,UL,FIGURE,DIV,P" && made.code.includes("<b>"), JSON.stringify(made));
  const took = await page.evaluate(async () => {
    const { blocks, element } = await import("/page/markdown.js");
    const begun = performance.now();
    for (const text of ["**a ".repeat(20_000), "[".repeat(50_000), "`".repeat(50_000), "_a".repeat(30_000), "> ".repeat(5_000)]) blocks(text).map((block) => element(block));
    return performance.now() - begun;
  });
  check(took < 5000, `hostile text takes ${took} ms`);
});

await step("a worker dies, the answer goes on and the page shows it", async () => {
  await page.getByRole("button", { name: "New conversation" }).click();
  await limit(300);
  await ask("Write a long story about a sheep that counts people.");
  await grown(40);
  process.kill(Number(workers.split(",")[1]), "SIGKILL");
  const atKill = (await lastText()).length;
  await page.click("#to-cluster");
  await page.waitForSelector(".events .failover", { timeout: 30_000 });
  check((await page.locator(".events .worker_lost").count()) >= 1, "the loss is among the events");
  await page.waitForFunction(() => document.querySelectorAll(".pipeline:not(.next) .stage").length === 2);
  await page.click("#to-chat");
  await ended();
  check((await page.locator("article.assistant .figures.failed").count()) === 0, "the answer did not fail");
  check((await lastText()).length > atKill, "the answer went on");
});

await step("a page that is loaded again in the middle has what had come", async () => {
  await ask("Tell me a long story about a dog, too.");
  await grown(20);
  await page.waitForTimeout(2500);
  await page.reload();
  await page.waitForSelector("article.assistant");
  check((await page.locator("article.user").count()) === 2, "both questions are there");
  check((await lastText()).length > 10, "and a part of the answer");
  await page.click("#to-cluster");
  await page.waitForSelector(".pipeline .stage");
});

await step("plots are drawn", async () => {
  await page.waitForFunction(() => document.querySelectorAll(".plot path")[0].getAttribute("d")?.includes("L"), null, { timeout: 20_000 });
  await page.screenshot({ path: `${pictures}/cluster.png`, fullPage: true });
});

await step("small screens and the dark scheme", async () => {
  await page.click("#to-chat");
  await page.screenshot({ path: `${pictures}/chat.png` });
  for (const [scheme, width] of [["dark", 390], ["light", 390]]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height: 780 });
    for (const part of ["chat", "cluster"]) {
      await page.click(`#to-${part}`);
      await page.waitForTimeout(300);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      check(wide <= 0, `${part} is ${wide} px too wide`);
      await page.screenshot({ path: `${pictures}/${part}-${scheme}-${width}.png` });
    }
  }
});

await step("contrast is AA in both schemes", async () => {
  const style = readFileSync(process.env.STYLE, "utf8");
  const colours = Object.fromEntries([...style.matchAll(/--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)/g)].map(([, name, light, dark]) => [name, [light, dark]]));
  const luminance = (hex) => {
    const channel = (at) => {
      const value = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
      return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    };
    return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
  };
  const ratio = (a, b) => (Math.max(luminance(a), luminance(b)) + 0.05) / (Math.min(luminance(a), luminance(b)) + 0.05);
  for (const scheme of [0, 1]) {
    for (const text of ["text", "faint", "green", "ochre", "red"]) {
      for (const ground of ["ground", "panel"]) {
        const found = ratio(colours[text][scheme], colours[ground][scheme]);
        check(found >= 4.5, `${text} on ${ground} has ${found.toFixed(2)}`);
      }
    }
    for (const ground of ["green-ground", "red-ground"]) check(ratio("#ffffff", colours[ground][scheme]) >= 4.5, ground);
  }
});

check(wrong.length === 0, wrong.join("\n"));
await browser.close();
console.log(`${steps} steps passed`);
