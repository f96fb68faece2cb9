// One message on the page, and the stream of an answer that fills it.

import { button, el, setText } from "./dom.js";
import { Growing } from "./markdown.js";
import { Refused, events, request } from "./server.js";
import { count, short } from "./units.js";

/** After so long without a token the answer says that it waits. */
const QUIET_MS = 1500;

/** A message as an article; `show(message)` brings it up to date. */
export class Shown {
  constructor(message, actions) {
    this.message = message;
    this.text = el("div", { className: "text" });
    this.growing = new Growing(this.text);
    this.thought = el("div", { className: "text" });
    this.thinking = new Growing(this.thought);
    this.summary = el("summary", {}, "Thinking");
    this.fold = el("details", { className: "thinking", hidden: true }, this.summary, this.thought);
    this.calls = el("div", { className: "calls" });
    this.figures = el("p", { className: "figures" });
    this.actions = el("div", { className: "actions" }, actions);
    const who = message.role === "user" ? "You" : "Answer";
    this.element = el(
      "article",
      { className: message.role, "aria-label": who },
      el("h2", {}, who),
      this.fold,
      this.text,
      this.calls,
      el("footer", {}, this.figures, this.actions),
    );
    this.show(message);
  }

  show(message, waits = false) {
    if (message.role === "user") setText(this.text, message.content);
    else this.growing.show(message.content);
    this.fold.hidden = !message.reasoning;
    if (message.reasoning) {
      setText(this.summary, message.content ? "Thinking" : "Thinking …");
      this.thinking.show(message.reasoning);
    }
    this.showCalls(message.calls ?? []);
    setText(this.figures, line(message, waits));
    this.figures.classList.toggle("failed", Boolean(message.failed));
  }

  showCalls(calls) {
    for (const [at, call] of calls.entries()) {
      const shown = this.calls.children[at] ?? this.calls.appendChild(el("figure", { className: "call" }, el("figcaption"), el("pre", {}, el("code"))));
      setText(shown.querySelector("figcaption"), `Calls ${call.name}`);
      setText(shown.querySelector("code"), pretty(call.arguments));
    }
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

const ENDS = { length: "cut off: the limit of tokens is reached", stopped: "stopped", content_filter: "filtered" };

function line(message, waits) {
  if (message.failed) return message.failed;
  const { tokens, perSecond, firstMs } = message.figures ?? {};
  const parts = [];
  if (tokens) parts.push(count(tokens, "token"));
  if (perSecond) parts.push(`${short(perSecond)} tokens/s`);
  if (firstMs !== undefined) parts.push(`first after ${short(firstMs / 1000)} s`);
  if (ENDS[message.end]) parts.push(ENDS[message.end]);
  if (waits) parts.push(tokens ? "waiting for the cluster …" : "waiting …");
  return parts.join(" · ");
}

/** Asks for an answer and fills `message` with it; `changed(waits)` is called when there is more to show. */
export async function stream(body, message, signal, changed) {
  const begun = performance.now();
  const state = { begun, first: null, last: begun, chunks: 0 };
  message.figures = { tokens: 0 };
  const quiet = setInterval(() => {
    if (performance.now() - state.last > QUIET_MS) changed(true);
  }, 500);
  try {
    const all = { ...body, stream: true, stream_options: { include_usage: true } };
    const response = await request("/v1/chat/completions", { body: all, signal });
    for await (const event of events(response)) {
      if (event.data === "[DONE]") break;
      take(JSON.parse(event.data), message, state);
      changed(false);
    }
    if (!message.end) throw new Refused(0, "broken", "The answer broke off: the server ended it without saying why.");
  } catch (error) {
    if (error.name === "AbortError") message.end = "stopped";
    else message.failed = explain(error);
  } finally {
    clearInterval(quiet);
    changed(false);
  }
}

function explain(error) {
  if (error instanceof Refused && error.code !== "unreachable") return error.message;
  return "The connection to the server was lost. What has come so far stands above; “Try again” asks anew.";
}

function take(chunk, message, state) {
  if (chunk.error) throw new Refused(0, chunk.error.code ?? "", chunk.error.message);
  const now = performance.now();
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  if (delta.content || delta.reasoning_content || delta.tool_calls) {
    state.first ??= now;
    state.chunks += 1;
    state.last = now;
    message.figures.firstMs = state.first - state.begun;
    message.figures.tokens = state.chunks;
    if (state.chunks > 1) message.figures.perSecond = ((state.chunks - 1) * 1000) / (now - state.first);
  }
  message.content += delta.content ?? "";
  if (delta.reasoning_content) message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
  for (const call of delta.tool_calls ?? []) takeCall(call, message);
  if (choice?.finish_reason) message.end = choice.finish_reason;
  if (chunk.usage) {
    message.figures.tokens = chunk.usage.completion_tokens;
    const seconds = (state.last - (state.first ?? now)) / 1000;
    if (chunk.usage.completion_tokens > 1 && seconds > 0) message.figures.perSecond = (chunk.usage.completion_tokens - 1) / seconds;
  }
}

function takeCall(delta, message) {
  message.calls ??= [];
  message.calls[delta.index] ??= { id: "", name: "", arguments: "" };
  const call = message.calls[delta.index];
  call.id += delta.id ?? "";
  call.name += delta.function?.name ?? "";
  call.arguments += delta.function?.arguments ?? "";
}

/** The buttons below an answer. */
export function answerActions({ again, copy }) {
  return [button("Try again", again, { className: "quiet" }), button("Copy", copy, { className: "quiet" })];
}
