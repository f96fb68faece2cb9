// Questions to the planner: what becomes of a model if a machine dies, and what a model that may be loaded would need. Asks
// `POST /admin/v1/plan`, which only answers.

import { button, el } from "./dom.js";
import { json } from "./server.js";
import { count, short, size } from "./units.js";

/** The form and the answer in `where`; `show(told)` brings its choices up to date. */
export function whatIf(where) {
  const model = el("select", { id: "what-if-model" });
  const without = el("select", { id: "what-if-without" });
  const answer = el("div", { role: "status", "aria-live": "polite" });
  const ask = async (event) => {
    event.preventDefault();
    const body = { model: model.value };
    if (without.value) body.without = without.value;
    try {
      answer.replaceChildren(told(await json("/admin/v1/plan", { kind: "admin", body })));
    } catch (error) {
      answer.replaceChildren(el("p", { className: "notice" }, error.message));
    }
  };
  where.append(
    el("form", { onsubmit: ask },
      el("label", { for: "what-if-model" }, "Model"), model,
      el("label", { for: "what-if-without" }, "without"), without,
      button("Ask the planner", null, { type: "submit" })),
    answer);
  return {
    show({ models, workers }) {
      choices(model, models.map(({ model: name }) => [name, name]));
      const here = workers.filter(({ state }) => state !== "lost");
      choices(without, [["", "all workers as they are"], ...here.map((worker) => [worker.worker_id, `${worker.worker} (it dies)`])]);
    },
  };
}

function choices(select, wanted) {
  const present = [...select.options].map((option) => [option.value, option.textContent]);
  if (JSON.stringify(present) === JSON.stringify(wanted)) return;
  const chosen = select.value;
  select.replaceChildren(...wanted.map(([value, text]) => el("option", { value }, text)));
  if (wanted.some(([value]) => value === chosen)) select.value = chosen;
}

function told({ plan, refused }) {
  if (!plan) return el("p", { className: "notice" }, refused?.text ?? "There is no plan.");
  const decode = plan.prediction.decode.map(({ streams, tokens_per_s: speed }) => `${short(speed)} tokens/s for ${count(streams, "stream")}`);
  const line = (stage, at) => el("li", {}, `${at} · ${stage.machine}: layers ${stage.layer_first}–${stage.layer_last}, ${size(stage.weights_bytes)} of weights, ${size(stage.kv_bytes)} of KV`);
  return el("div", {}, el("p", {}, `${decode.join(", ")}; ${plan.kv_tokens.toLocaleString("en")} tokens of KV cache.`), el("ol", { start: 0 }, plan.stages.map(line)));
}
