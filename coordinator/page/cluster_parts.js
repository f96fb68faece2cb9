// A model's pipeline and the list of workers, as elements made from what `GET /admin/v1/cluster` answers.

import { button, el } from "./dom.js";
import { count, duration, micros, short, size } from "./units.js";

/** A model: a line about it, and its stages in order. */
export function pipeline(model, told) {
  const plan = model.plan;
  const facts = [
    `${model.state}: ${model.detail}`,
    `${count(model.running, "request")} running, ${model.waiting} waiting`,
    model.kv_blocks && `${model.kv_blocks - model.kv_blocks_free} of ${model.kv_blocks.toLocaleString("en")} KV blocks in use, ${model.kv_blocks_cached} cached`,
    model.objective && `cut for ${model.objective}`,
    model.failovers > 0 && count(model.failovers, "failover"),
  ];
  return el("article", { className: "model" },
    el("h3", {}, model.model),
    el("p", { className: "facts" }, facts.filter(Boolean).join(" · ")),
    plan && stages(plan, told, false),
    plan && el("p", { className: "why" }, `Plan ${plan.plan}: ${plan.reason}`),
    model.next && [el("p", { className: "why" }, `Plan ${model.next.plan} is being prepared: ${model.next.reason}`), stages(model.next, told, true)]);
}

function stages(plan, told, isNext) {
  const busiest = bottleneck(plan);
  const shown = plan.stages.map((stage, at) => [at > 0 && link(plan.stages[at - 1], stage, told), stageElement(stage, at, stage === busiest, told)]);
  return el("ol", { className: isNext ? "pipeline next" : "pipeline", tabIndex: 0, "aria-label": isNext ? "Stages of the next plan" : "Stages" }, shown);
}

/** The stage that computes most of the time, if the plan has several and one is clearly at work. */
function bottleneck(plan) {
  const busy = (stage) => stage.recent?.busy_percent ?? 0;
  const most = plan.stages.reduce((a, b) => (busy(b) > busy(a) ? b : a), plan.stages[0]);
  return plan.stages.length > 1 && busy(most) >= 20 ? most : null;
}

function stageElement(stage, at, isBottleneck, told) {
  const worker = told.workers.find(({ worker_id: id }) => id === stage.worker_id);
  const { recent } = stage;
  const layers = stage.layer_end - stage.layer_first === 1 ? `layer ${stage.layer_first}` : `layers ${stage.layer_first}–${stage.layer_end - 1}`;
  const memory = worker?.memory;
  return el("li", { className: isBottleneck ? "stage bottleneck" : "stage" },
    el("b", {}, `${at} · ${stage.worker}`),
    el("span", { className: "layers" }, layers),
    bar(recent ? recent.busy_percent : stage.loaded_percent, recent ? `${recent.busy_percent} % busy` : `${stage.loaded_percent} % loaded`, recent ? "busy" : "loading"),
    recent?.mean && el("span", {}, `computes ${micros(recent.mean.compute_us)}, waits ${micros(recent.mean.wait_us)}, wire ${micros(recent.mean.wire_us)}`),
    el("span", {}, `one token: ${micros(stage.predicted_us)} predicted`),
    el("span", {}, `${size(stage.weights)} of weights, ${size(stage.kv)} of KV`),
    memory && bar(100 - Math.round((100 * memory.free) / Math.max(memory.allowance, 1)), `${size(memory.allowance - memory.free)} of ${size(memory.allowance)}`, "memory"),
    isBottleneck && el("strong", {}, "limits the pipeline"));
}

function link(from, to, told) {
  const sameMachine = machineOf(from, told) === machineOf(to, told);
  const rtt = to.link?.rtt_us ?? from.link?.rtt_us;
  const text = [rtt && `${micros(rtt)}`, sameMachine ? "same machine" : ""].filter(Boolean).join(", ");
  return el("li", { className: "link", "aria-label": `link${text ? `: ${text}` : ""}` }, el("span", { "aria-hidden": "true" }, "→"), text && el("small", {}, text));
}

function machineOf(stage, told) {
  return told.workers.find(({ worker_id: id }) => id === stage.worker_id)?.machine;
}

function bar(percent, text, className) {
  const inner = el("i", {});
  inner.style.setProperty("width", `${Math.max(0, Math.min(100, percent))}%`);
  return el("span", { className: `meter ${className}` }, el("span", { className: "track", "aria-hidden": "true" }, inner), el("span", {}, text));
}

/** The workers as a table, with what may be done with each. */
export function workers(told, { remove }) {
  if (!told.workers.length) return el("p", { className: "empty" }, "No worker has joined.");
  const head = ["Worker", "State", "Machine", "Threads", "Memory", "Reads", "Round trip", "Version", ""];
  const rows = told.workers.map((worker) => row(worker, { remove }));
  return el("div", { className: "wide", tabIndex: 0 }, el("table", { className: "workers" }, el("thead", {}, el("tr", {}, head.map((text) => el("th", {}, text)))), el("tbody", {}, rows)));
}

function row(worker, { remove }) {
  const { memory, heard } = worker;
  const state = worker.backoff_ms ? `${worker.state.replaceAll("_", " ")}, ${duration(worker.backoff_ms)} more` : worker.state.replaceAll("_", " ");
  return el("tr", { className: worker.state },
    el("th", { scope: "row", title: worker.worker_id }, worker.worker),
    el("td", { title: worker.reason ?? "" }, el("span", { className: `state ${worker.state}` }, state), worker.reason && el("small", {}, worker.reason)),
    el("td", { title: worker.machine }, `${worker.machine.slice(0, 8)} ${worker.address}`),
    el("td", {}, `${worker.threads} × ${worker.isa}`),
    el("td", {}, memory ? `${size(memory.allowance - memory.free)} of ${size(memory.allowance)}` : "–"),
    el("td", {}, `${short(worker.read_bytes_per_s / 1e9)} GB/s`),
    el("td", {}, heard?.rtt_us ? micros(heard.rtt_us) : "–"),
    el("td", {}, worker.version),
    el("td", { className: "actions" }, button("Remove", () => remove(worker), { className: "quiet", "aria-label": `Remove ${worker.worker}` })));
}
