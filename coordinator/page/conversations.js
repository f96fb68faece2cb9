// Conversations as this browser keeps them (localStorage), the one that was used last first. The server keeps none.
//
// A conversation: `{id, title, updated, system, parameters, messages}`; a message: `{role, content}` and of an answer also
// `reasoning`, `calls` (`[{id, name, arguments}]`), `end` (why it ended) and `figures`. At most `COUNT_MAX` of them and `CHARS_MAX`
// characters in all; those that were not used for longest go first.

const PLACE = "woolly-conversations";
const COUNT_MAX = 100;
const CHARS_MAX = 3_000_000;

/** All that are kept. */
export function load() {
  try {
    const found = JSON.parse(localStorage.getItem(PLACE) ?? "[]");
    return Array.isArray(found) ? found.filter((one) => Array.isArray(one?.messages)) : [];
  } catch {
    return [];
  }
}

/** Keeps them. Resolves to false if this browser gave no room even for the newest. */
export function save(conversations) {
  const kept = conversations
    .filter((one) => one.messages.length > 0)
    .sort((a, b) => b.updated - a.updated)
    .slice(0, COUNT_MAX);
  let text = JSON.stringify(kept);
  while (text.length > CHARS_MAX && kept.length > 1) {
    kept.pop();
    text = JSON.stringify(kept);
  }
  for (;;) {
    try {
      localStorage.setItem(PLACE, text);
      return true;
    } catch {
      if (kept.length <= 1) return false;
      kept.pop();
      text = JSON.stringify(kept);
    }
  }
}

/** A new one, with the system prompt and parameters of the one before. */
export function fresh(before) {
  return {
    id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`,
    title: "",
    updated: Date.now(),
    system: before?.system ?? "",
    parameters: { ...before?.parameters },
    messages: [],
  };
}

/** What stands in lists: the beginning of the first question. */
export function titleOf(conversation) {
  const first = conversation.messages.find((message) => message.role === "user")?.content ?? "";
  const line = first.trim().split("\n")[0];
  return line.length > 60 ? `${line.slice(0, 59)}…` : line || "New conversation";
}

/** The messages as the API takes them: the reasoning of earlier answers is not sent again. */
export function asSent(conversation) {
  const system = conversation.system.trim() ? [{ role: "system", content: conversation.system }] : [];
  const messages = conversation.messages.map(({ role, content, calls }) => {
    const toolCalls = calls?.length && calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
    return toolCalls ? { role, content, tool_calls: toolCalls } : { role, content };
  });
  return [...system, ...messages];
}
