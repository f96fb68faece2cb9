// Speaks with the server that this page came from, and with no other host.
//
// Two keys, kept by this tab alone (sessionStorage): that of the API, and that of the admin API. The key that stands behind
// `#key=` of the address works once: it is exchanged for one of this tab's own and taken off the address at once.

const KEYS = { api: "woolly-api-key", admin: "woolly-admin-key" };

/** What the server refused, in its words. `status` is 0 if it did not answer. */
export class Refused extends Error {
  constructor(status, code, text, retryAfter = null) {
    super(text);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** The key of a kind (`api`, `admin`), or null. */
export function key(kind) {
  return sessionStorage.getItem(KEYS[kind]);
}

/** Keeps a key for this tab; an empty one is forgotten. */
export function keep(kind, value) {
  if (value) sessionStorage.setItem(KEYS[kind], value);
  else sessionStorage.removeItem(KEYS[kind]);
}

/** Sends a request; the answer's head has come and is no refusal. */
export async function request(path, { kind = "api", body, method, signal, headers = {} } = {}) {
  const held = kind in KEYS ? key(kind) : null;
  const all = { ...headers };
  if (held) all.authorization = `Bearer ${held}`;
  if (body !== undefined) all["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: all,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "omit",
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "unreachable", "The server does not answer.");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const text = told?.error?.message ?? `The server answered ${response.status}.`;
  throw new Refused(response.status, told?.error?.code ?? "", text, response.headers.get("retry-after"));
}

/** As `request`, and the answer read as JSON. */
export async function json(path, options) {
  const response = await request(path, options);
  return response.json();
}

/** The server-sent events of an answer, one after the other: `{event, id, data}`. Ends with the answer. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      let end;
      while ((end = held.indexOf("\n\n")) >= 0) {
        const found = parsed(held.slice(0, end));
        held = held.slice(end + 2);
        if (found) yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(text) {
  const found = { event: "message", id: null, data: [] };
  for (const line of text.split("\n")) {
    if (line.startsWith("data:")) found.data.push(line.slice(5).trimStart());
    else if (line.startsWith("event:")) found.event = line.slice(6).trim();
    else if (line.startsWith("id:")) found.id = line.slice(3).trim();
  }
  return found.data.length ? { ...found, data: found.data.join("\n") } : null;
}

/** Takes the one-use key off the address and exchanges it. Resolves to why it was not taken, or null. */
export async function exchange() {
  const found = /[#&]key=([^&]+)/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, "", `${location.pathname}#cluster`);
  try {
    const told = await json("/admin/v1/session", { kind: "none", body: { key: decodeURIComponent(found[1]) } });
    keep("admin", told.key);
    return null;
  } catch (error) {
    return error.message;
  }
}
