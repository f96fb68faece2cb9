// Puts the page together: which part is shown, and whether the server answers.

import { Chat } from "./chat.js";
import { Cluster } from "./cluster.js";
import { setText } from "./dom.js";
import { exchange } from "./server.js";

const parts = { chat: document.getElementById("chat"), cluster: document.getElementById("cluster") };
const status = document.getElementById("connection");
const connection = (text) => setText(status, text);

const refused = await exchange();
const chat = new Chat(parts.chat);
const cluster = new Cluster(parts.cluster, connection);
cluster.refused = refused;

function show() {
  const name = location.hash.startsWith("#cluster") ? "cluster" : "chat";
  for (const [part, element] of Object.entries(parts)) {
    element.hidden = part !== name;
    const link = document.getElementById(`to-${part}`);
    if (part === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "cluster" && !document.hidden) cluster.start();
  else cluster.stop();
}

addEventListener("hashchange", show);
document.addEventListener("visibilitychange", show);
show();

/** A chat without a model looks whether there is one now: the server is back, or has loaded it. */
setInterval(() => {
  if (!document.hidden && !parts.chat.hidden && !chat.models.length) chat.refreshModels();
}, 10_000);

