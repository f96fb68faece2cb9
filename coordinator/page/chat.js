// The chat: conversations at the side, messages in the middle, what is asked below.

import { Shown, answerActions, stream } from "./answer.js";
import { asSent, fresh, load, save, titleOf } from "./conversations.js";
import { button, confirmed, el, setText } from "./dom.js";
import { Refused, json, keep, key } from "./server.js";

/** Parameters that can be set: name in the API, label, limits. An empty field leaves it to the server. */
const PARAMETERS = [
  ["temperature", "Temperature", 0, 2, 0.1],
  ["top_p", "Top p", 0, 1, 0.05],
  ["top_k", "Top k", 0, 1000, 1],
  ["max_tokens", "Tokens at most", 1, 1_000_000, 1],
  ["seed", "Seed", 0, 9_007_199_254_740_991, 1],
];
/** So near to the end of the messages the page follows an answer. */
const NEAR_PX = 80;
/** An answer that is on its way is kept so often, so that a page that is loaded again has it. */
const KEEP_MS = 2000;

export class Chat {
  constructor(where) {
    this.conversations = load();
    this.present = this.conversations[0] ?? fresh();
    this.models = [];
    this.running = null;
    this.build(where);
    this.open(this.present);
    this.refreshModels();
    addEventListener("pagehide", () => this.keepAll());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.running && !document.querySelector("dialog[open]")) this.running.abort();
    });
  }

  build(where) {
    this.list = el("ul", { className: "conversations" });
    this.log = el("div", { className: "messages", role: "log", "aria-label": "Messages", tabIndex: 0 });
    this.model = el("select", { id: "model", onfocus: () => this.refreshModels() });
    this.system = el("textarea", { id: "system", rows: 3, oninput: () => this.keepSettings() });
    this.fields = PARAMETERS.map(([name, label, min, max, step]) => this.field(name, label, { min, max, step }));
    this.thinking = el("select", { id: "thinking", onchange: () => this.keepSettings() }, el("option", { value: "" }, "as the model does"), el("option", { value: "on" }, "on"), el("option", { value: "off" }, "off"));
    this.input = el("textarea", { id: "question", rows: 2, placeholder: "Ask something", onkeydown: (event) => this.typed(event), oninput: () => this.grow() });
    this.send = button("Send", () => (this.running ? this.running.abort() : this.ask()), { className: "primary" });
    this.notice = el("p", { className: "notice", role: "alert", hidden: true });
    this.key = this.keyForm();
    const settings = el("details", { className: "settings" }, el("summary", {}, "Settings"), this.settings());
    where.append(
      el("aside", { "aria-label": "Conversations" }, button("New conversation", () => this.open(fresh(this.present)), { className: "primary" }), this.list),
      el("section", { className: "talk" },
        el("div", { className: "bar" }, el("label", { for: "model" }, "Model"), this.model, settings),
        this.notice, this.key, this.log,
        el("form", { className: "ask", onsubmit: (event) => event.preventDefault() }, el("label", { for: "question", className: "unseen" }, "Your message"), this.input, this.send)),
    );
  }

  settings() {
    return el("div", { className: "fields" },
      el("label", { for: "system" }, "System prompt"), this.system,
      this.fields.map(({ label, input }) => [label, input]),
      el("label", { for: "thinking" }, "Thinking"), this.thinking);
  }

  field(name, text, limits) {
    const input = el("input", { id: name, type: "number", placeholder: "server's", ...limits, oninput: () => this.keepSettings() });
    return { name, label: el("label", { for: name }, text), input };
  }

  keyForm() {
    const input = el("input", { id: "api-key", type: "password", autocomplete: "off" });
    const use = (event) => {
      event.preventDefault();
      keep("api", input.value.trim());
      input.value = "";
      this.refreshModels();
    };
    return el("form", { className: "key", hidden: true, onsubmit: use }, el("label", { for: "api-key" }, "This server asks for an API key; this tab keeps it until it is closed"), input, el("button", { className: "primary" }, "Use"));
  }

  async refreshModels() {
    try {
      const { data } = await json("/v1/models");
      this.models = data.map(({ id }) => id);
      this.key.hidden = true;
      this.say(this.models.length ? "" : "No model is loaded yet. “woolly-coordinator models load NAME” on the server's machine loads one.");
    } catch (error) {
      this.models = [];
      this.key.hidden = !(error instanceof Refused && error.status === 401);
      this.say(error.status === 401 && !key("api") ? "" : error.message);
    }
    const chosen = this.model.value;
    if ([...this.model.options].map((option) => option.value).join("\n") === this.models.join("\n")) return;
    this.model.replaceChildren(...this.models.map((name) => el("option", { value: name }, name)));
    if (this.models.includes(chosen)) this.model.value = chosen;
  }

  say(text) {
    setText(this.notice, text);
    this.notice.hidden = !text;
  }

  open(conversation) {
    this.running?.abort();
    this.present = conversation;
    this.system.value = conversation.system;
    for (const { name, input } of this.fields) input.value = conversation.parameters[name] ?? "";
    this.thinking.value = conversation.parameters.thinking ?? "";
    this.showMessages();
    this.showList();
    this.input.focus({ preventScroll: true });
  }

  showMessages() {
    this.shown = this.present.messages.map((message, at) => this.shownMessage(message, at));
    const empty = el("p", { className: "empty" }, "Ask something. The answer is computed on the machines of this cluster.");
    this.log.replaceChildren(...(this.shown.length ? this.shown.map(({ element }) => element) : [empty]));
    this.log.scrollTop = this.log.scrollHeight;
  }

  shownMessage(message, at) {
    const copy = () => navigator.clipboard?.writeText(message.content);
    const actions = message.role === "assistant" ? answerActions({ again: () => this.again(at), copy }) : [button("Edit", () => this.edit(at), { className: "quiet" })];
    return new Shown(message, actions);
  }

  showList() {
    const entry = (one) =>
      el("li", { className: one === this.present ? "present" : "" },
        el("button", { type: "button", onclick: () => this.open(one), "aria-current": one === this.present ? "true" : null }, titleOf(one)),
        button("×", () => this.remove(one), { className: "quiet", "aria-label": `Delete “${titleOf(one)}”`, title: "Delete" }));
    this.list.replaceChildren(...this.conversations.map(entry));
  }

  async remove(conversation) {
    if (!(await confirmed("Delete this conversation?", titleOf(conversation), "Delete"))) return;
    this.conversations = this.conversations.filter((one) => one !== conversation);
    save(this.conversations);
    if (conversation === this.present) this.open(this.conversations[0] ?? fresh(conversation));
    else this.showList();
  }

  keepSettings() {
    this.present.system = this.system.value;
    const { parameters } = this.present;
    for (const { name, input } of this.fields) {
      if (input.value === "" || !input.checkValidity()) delete parameters[name];
      else parameters[name] = Number(input.value);
      input.classList.toggle("wrong", !input.checkValidity());
    }
    if (this.thinking.value) parameters.thinking = this.thinking.value;
    else delete parameters.thinking;
    this.keepAll();
  }

  keepAll() {
    if (!save(this.conversations)) this.say("This browser has no room to keep conversations: this one is lost when the page is closed.");
  }

  typed(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!this.running) this.ask();
  }

  grow() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight + 2, innerHeight * 0.4)}px`;
  }

  edit(at) {
    this.running?.abort();
    this.input.value = this.present.messages[at].content;
    this.present.messages.splice(at);
    this.keepAll();
    this.showMessages();
    this.grow();
    this.input.focus();
  }

  again(at) {
    if (this.running) return;
    this.present.messages.splice(at);
    this.showMessages();
    this.answer();
  }

  ask() {
    const content = this.input.value.trim();
    if (!content || !this.models.length) return;
    this.input.value = "";
    this.grow();
    this.present.messages.push({ role: "user", content });
    this.showMessages();
    this.answer();
  }

  async answer() {
    const conversation = this.present;
    const { thinking, ...parameters } = conversation.parameters;
    const body = { model: this.model.value, messages: asSent(conversation), ...parameters };
    if (thinking) body.chat_template_kwargs = { enable_thinking: thinking === "on" };
    const message = { role: "assistant", content: "" };
    const shown = this.shownMessage(message, conversation.messages.push(message) - 1);
    this.shown.push(shown);
    this.log.append(shown.element);
    this.log.scrollTop = this.log.scrollHeight;
    this.note(conversation);
    this.running = new AbortController();
    this.showRunning(true);
    let due = null;
    const changed = (waits) => {
      due ??= requestAnimationFrame(() => {
        due = null;
        this.bring(shown, message, waits);
      });
    };
    const running = this.running;
    await stream(body, message, running.signal, changed);
    if (this.running === running) {
      this.running = null;
      this.showRunning(false);
    }
    this.note(conversation);
  }

  /** Shows more of an answer, and follows its end if that is what is looked at. */
  bring(shown, message, waits) {
    const follows = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR_PX;
    shown.show(message, waits);
    if (follows) this.log.scrollTop = this.log.scrollHeight;
    if (performance.now() - (this.keptAt ?? 0) > KEEP_MS) {
      this.keptAt = performance.now();
      this.keepAll();
    }
  }

  showRunning(runs) {
    setText(this.send, runs ? "Stop" : "Send");
    this.log.setAttribute("aria-busy", String(runs));
  }

  note(conversation) {
    conversation.updated = Date.now();
    this.conversations = [conversation, ...this.conversations.filter((one) => one !== conversation)];
    this.keepAll();
    this.showList();
  }
}
