// The cluster as it is: stages, workers, figures over time, events, and what an operator may do. Asks the admin API once a
// second while it is looked at (docs/operating.md has every field); when the connection is lost it says so and asks on.

import { button, confirmed, el, morph, setText } from "./dom.js";
import { Plot } from "./plots.js";
import { Refused, json, keep, key } from "./server.js";
import { pipeline, workers } from "./cluster_parts.js";
import { clock, duration, short } from "./units.js";

const ASK_MS = 1000;
const HISTORY_MS = 5000;
const MINUTES = 15;

export class Cluster {
  constructor(where, connection) {
    this.connection = connection;
    this.plots = [
      new Plot("Generated", "tokens/s", MINUTES, [{ className: "one", of: (sample) => sample.tokens_per_s }]),
      new Plot("First token", "s", MINUTES, [
        { name: "half", className: "one", of: (sample) => sample.first_token_p50_ms / 1000 },
        { name: "95 %", className: "two", of: (sample) => sample.first_token_p95_ms / 1000 },
      ]),
      new Plot("Requests", "", MINUTES, [
        { name: "running", className: "one", of: (sample) => sample.running },
        { name: "waiting", className: "two", of: (sample) => sample.waiting },
      ]),
      new Plot("KV cache in use", "%", MINUTES, [{ className: "one", of: (sample) => sample.kv_used_percent }]),
    ];
    this.build(where);
    this.timer = null;
    /** Why the key of the address was not taken; `null` if it was, or there was none. */
    this.refused = null;
  }

  build(where) {
    this.notice = el("p", { className: "notice", role: "alert", hidden: true });
    this.key = this.keyForm();
    this.summary = el("p", { className: "summary" });
    this.models = el("div");
    this.workers = el("div");
    this.events = el("ol", { className: "events" });
    this.join = el("div", { className: "join" });
    /** What the last order was refused with: it stays, whatever the cluster does meanwhile. */
    this.refusal = el("p", { className: "notice", role: "alert", hidden: true });
    const part = (title, ...inner) => el("section", {}, el("h2", {}, title), inner);
    this.all = el("div", { className: "parts", hidden: true },
      this.summary,
      part("Pipeline", this.models),
      part(`The last ${MINUTES} minutes`, el("div", { className: "plots" }, this.plots.map(({ element }) => element))),
      part("Workers", this.workers, this.refusal, el("div", { className: "actions" }, button("Add a worker …", () => this.token())), this.join),
      part("Events", this.events));
    where.append(this.notice, this.key, this.all);
  }

  keyForm() {
    const input = el("input", { id: "admin-key", type: "password", autocomplete: "off" });
    const use = (event) => {
      event.preventDefault();
      keep("admin", input.value.trim());
      this.refused = null;
      input.value = "";
      this.ask();
    };
    const text = "The key that serve was given with --admin-key; or open the address that serve printed";
    return el("form", { className: "key", hidden: true, onsubmit: use }, el("label", { for: "admin-key" }, text), input, el("button", { className: "primary" }, "Use"));
  }

  /** Begins to ask. */
  start() {
    if (this.timer === null) this.ask();
  }

  /** Nobody looks at it. */
  stop() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  async ask() {
    clearTimeout(this.timer);
    this.timer = 0;
    let pause = ASK_MS;
    try {
      this.show(await json("/admin/v1/cluster", { kind: "admin" }));
      if (Date.now() - (this.historyAt ?? 0) >= HISTORY_MS) {
        this.historyAt = Date.now();
        const { samples } = await json("/admin/v1/history", { kind: "admin" });
        for (const plot of this.plots) plot.show(samples);
      }
      this.connection("");
      this.say("");
    } catch (error) {
      pause = this.failed(error);
    }
    if (this.timer !== null) this.timer = setTimeout(() => this.ask(), pause);
  }

  failed(error) {
    const closed = error instanceof Refused && (error.status === 401 || error.status === 403);
    this.key.hidden = !closed;
    this.all.hidden = closed;
    this.all.classList.toggle("old", !closed);
    if (closed) this.say(this.refused ?? (key("admin") || error.status === 403 ? error.message : ""));
    else this.connection("The server does not answer. What is shown is old; the page goes on asking.");
    return closed ? ASK_MS * 10 : ASK_MS * 2;
  }

  say(text) {
    setText(this.notice, text);
    this.notice.hidden = !text;
  }

  show(told) {
    this.told = told;
    this.key.hidden = true;
    this.all.hidden = false;
    this.all.classList.remove("old");
    const here = told.workers.filter(({ state }) => state !== "lost").length;
    const said = `Woolly ${told.version} · up ${duration(told.up_ms)} · ${here} worker${here === 1 ? "" : "s"}`;
    setText(this.summary, said);
    morph(this.models, told.models.length ? told.models.map((model) => pipeline(model, told)) : [el("p", { className: "empty" }, "No model is loaded.")]);
    morph(this.workers, [workers(told, { remove: (worker) => this.remove(worker) })]);
    this.showEvents(told.events);
  }

  showEvents(events) {
    const newest = events.at(-1)?.id;
    if (newest === this.newest) return;
    this.newest = newest;
    const entry = ({ at_ms: at, kind, ...fields }) => el("li", { className: kind }, el("time", {}, clock(at)), el("b", {}, kind.replaceAll("_", " ")), el("span", {}, words(fields)));
    this.events.replaceChildren(...events.toReversed().map(entry));
  }

  async remove(worker) {
    const detail = `Its certificate is taken back: it cannot come back without a new token. What it computes is computed again by the others.`;
    if (await confirmed(`Remove ${worker.worker}?`, detail, "Remove")) await this.order("/admin/v1/remove", { worker: worker.worker_id });
  }

  async order(path, body) {
    let refused = "";
    try {
      await json(path, { kind: "admin", body });
      this.ask();
    } catch (error) {
      refused = error.message;
    }
    setText(this.refusal, refused);
    this.refusal.hidden = !refused;
  }

  async token() {
    try {
      const { join } = await json("/admin/v1/tokens", { kind: "admin", body: {} });
      const copy = button("Copy", () => navigator.clipboard?.writeText(join).then(() => setText(copy, "Copied")));
      this.join.replaceChildren(el("p", {}, "On the machine that is to join:"), el("pre", { tabIndex: 0 }, el("code", {}, join)), copy);
    } catch (error) {
      this.join.replaceChildren(el("p", { className: "notice" }, error.message));
    }
  }
}

function words(fields) {
  const { id: _, worker_id: __, ...said } = fields;
  const text = ([name, value]) => (typeof value === "number" && name.endsWith("_ms") ? `${name.slice(0, -3).replaceAll("_", " ")} ${short(value / 1000)} s` : `${name.replaceAll("_", " ")} ${value}`);
  return Object.entries(said).map(text).join(" · ");
}
