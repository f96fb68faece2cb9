// Text of a model as elements: the parts of Markdown that models write. What is no part of it stays text.
//
// Blocks: headings, paragraphs, fenced code, lists (nested by indent), quotes, tables, rules. Inside: code, strong, emphasis,
// struck out, links to http and https. Pictures are shown as links: this page asks no other host for anything.

import { el } from "./dom.js";

const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])( *\1){2,} *$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const TABLE_RULE = /^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const DEPTH_MAX = 6;

/** Cuts a text into blocks: `{text, kind}` of whole lines. A block that is complete stays as it is when more text comes. */
export function blocks(text) {
  const lines = text.split("\n");
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const { kind, end } = block(lines, at);
    found.push({ kind, text: lines.slice(at, end).join("\n") });
    at = end;
  }
  return found;
}

function block(lines, at) {
  const fence = FENCE.exec(lines[at]);
  if (fence) return { kind: "code", end: fenceEnd(lines, at, fence[2]) };
  if (HEADING.test(lines[at])) return { kind: "heading", end: at + 1 };
  if (RULE.test(lines[at])) return { kind: "rule", end: at + 1 };
  if (QUOTE.test(lines[at])) return { kind: "quote", end: run(lines, at, (line) => line.trim() && !begins(line, "quote")) };
  if (ITEM.test(lines[at])) return { kind: "list", end: listEnd(lines, at) };
  if (lines[at].includes("|") && TABLE_RULE.test(lines[at + 1] ?? "")) {
    return { kind: "table", end: run(lines, at, (line) => line.includes("|")) };
  }
  return { kind: "paragraph", end: run(lines, at, (line) => line.trim() && !begins(line, "paragraph")) };
}

function begins(line, inside) {
  if (FENCE.test(line) || HEADING.test(line)) return true;
  return inside === "paragraph" && (QUOTE.test(line) || ITEM.test(line));
}

function run(lines, at, goesOn) {
  let end = at + 1;
  while (end < lines.length && goesOn(lines[end])) end += 1;
  return end;
}

function fenceEnd(lines, at, mark) {
  for (let end = at + 1; end < lines.length; end += 1) {
    const line = lines[end].trim();
    if (line.startsWith(mark) && !line.slice(mark.length).replaceAll(mark[0], "").trim()) return end + 1;
  }
  return lines.length;
}

function listEnd(lines, at) {
  let end = at + 1;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    const goesOn = ITEM.test(line) || /^\s{2,}\S/.test(line);
    const pause = !line.trim() && (ITEM.test(lines[end + 1] ?? "") || /^\s{2,}\S/.test(lines[end + 1] ?? ""));
    if (FENCE.test(line) && !/^\s{2,}/.test(line)) break;
    if (!goesOn && !pause && (!line.trim() || HEADING.test(line))) break;
  }
  return end;
}

/** A block as an element. */
export function element({ kind, text }, depth = 0) {
  if (kind === "code") return code(text);
  if (kind === "heading") {
    const [, marks, words] = HEADING.exec(text);
    return el(`h${Math.min(marks.length + 2, 6)}`, {}, inline(words));
  }
  if (kind === "rule") return el("hr");
  if (kind === "quote" && depth < DEPTH_MAX) {
    const inner = text.split("\n").map((line) => QUOTE.exec(line)?.[1] ?? line).join("\n");
    return el("blockquote", {}, blocks(inner).map((found) => element(found, depth + 1)));
  }
  if (kind === "list" && depth < DEPTH_MAX) return list(text, depth);
  if (kind === "table") return table(text);
  return el("p", {}, inline(text));
}

function code(text) {
  const lines = text.split("\n");
  const [, indent, mark, info] = FENCE.exec(lines[0]);
  const last = lines.length > 1 && lines.at(-1).trim().startsWith(mark) ? -1 : undefined;
  const body = lines.slice(1, last).map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line)).join("\n");
  const copy = el("button", { type: "button", className: "copy", onclick: () => copied(copy, body) }, "Copy");
  const name = info.trim().split(/\s/)[0];
  return el("figure", { className: "code" }, el("figcaption", {}, el("span", {}, name), copy), el("pre", { tabIndex: 0 }, el("code", {}, body)));
}

async function copied(where, text) {
  const worked = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  where.textContent = worked ? "Copied" : "Select it and copy";
  setTimeout(() => (where.textContent = "Copy"), 2000);
}

function list(text, depth) {
  const lines = text.split("\n");
  const [, base, mark] = ITEM.exec(lines[0]);
  const items = [];
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= base.length + 1) items.push([found[3]]);
    else items.at(-1)?.push(line);
  }
  const ordered = /\d/.test(mark);
  const first = ordered ? Number.parseInt(mark, 10) : null;
  return el(ordered ? "ol" : "ul", ordered && first !== 1 ? { start: first } : {}, items.map((item) => listItem(item, depth)));
}

function listItem([first, ...rest], depth) {
  const task = /^\[([ xX])\]\s+(.*)$/.exec(first);
  const box = task && el("input", { type: "checkbox", disabled: true, checked: task[1] !== " " });
  const indent = Math.min(...rest.filter((line) => line.trim()).map((line) => line.search(/\S/)), 8);
  const inner = rest.map((line) => line.slice(Math.min(indent, line.search(/\S|$/)))).join("\n");
  return el("li", {}, box, inline(task ? task[2] : first), blocks(inner).map((found) => element(found, depth + 1)));
}

function table(text) {
  const [head, , ...rows] = text.split("\n").map(cells);
  const row = (tag) => (values) => el("tr", {}, values.map((value) => el(tag, {}, inline(value))));
  return el("div", { className: "wide", tabIndex: 0 }, el("table", {}, el("thead", {}, row("th")(head)), el("tbody", {}, rows.map(row("td")))));
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

const INLINE = [
  [/`+/y, codeSpan],
  [/\\([!-/:-@[-`{-~])/y, (found) => [found[1], found[0].length]],
  [/!?\[([^\]]{0,500})\]\((https?:\/\/[^\s()]{1,2000}(?:\([^\s()]*\)[^\s()]*)?)(?:\s+"[^"]*")?\)/y, (found, depth) => [anchor(found[2], inline(found[1] || found[2], depth + 1)), found[0].length]],
  [/<(https?:\/\/[^\s<>]{1,2000})>/y, (found) => [anchor(found[1], found[1]), found[0].length]],
  [/https?:\/\/[^\s<>()*`]{1,2000}[^\s<>()*`.,;:!?'"]/y, (found) => [anchor(found[0], found[0]), found[0].length]],
  [/\*\*(?=\S)([\s\S]{0,1000}?\S)\*\*/y, (found, depth) => [el("strong", {}, inline(found[1], depth + 1)), found[0].length]],
  [/__(?=\S)([\s\S]{0,1000}?\S)__(?!\w)/y, (found, depth) => [el("strong", {}, inline(found[1], depth + 1)), found[0].length]],
  [/~~(?=\S)([\s\S]{0,1000}?\S)~~/y, (found, depth) => [el("del", {}, inline(found[1], depth + 1)), found[0].length]],
  [/\*(?=[^\s*])([\s\S]{0,1000}?[^\s*])\*(?!\*)/y, (found, depth) => [el("em", {}, inline(found[1], depth + 1)), found[0].length]],
  [/_(?=[^\s_])([\s\S]{0,1000}?[^\s_])_(?!\w)/y, (found, depth) => [el("em", {}, inline(found[1], depth + 1)), found[0].length]],
];
const STARTS = /[`\\[!<*_~h\n]/g;

/** What stands inside of a block, as a list of texts and elements. */
export function inline(text, depth = 0) {
  if (depth > DEPTH_MAX) return [text];
  const out = [];
  let plain = 0;
  let at = 0;
  while (at < text.length) {
    STARTS.lastIndex = at;
    const next = STARTS.exec(text);
    if (!next) break;
    at = next.index;
    const made = text[at] === "\n" ? [el("br"), 1] : inlineAt(text, at, depth);
    if (made) {
      out.push(text.slice(plain, at), made[0]);
      at += made[1];
      plain = at;
    } else {
      at += 1;
    }
  }
  out.push(text.slice(plain));
  return out.filter((part) => part !== "");
}

function inlineAt(text, at, depth) {
  // An underscore inside of a word is a part of it.
  if ((text[at] === "_" || text[at] === "h") && /\w/.test(text[at - 1] ?? "")) return null;
  for (const [pattern, make] of INLINE) {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    const made = found && make(found, depth, text);
    if (made) return made;
  }
  return null;
}

function codeSpan(found, depth, text) {
  const ticks = found[0];
  const from = found.index + ticks.length;
  let end = text.indexOf(ticks, from);
  while (end >= 0 && (text[end + ticks.length] === "`" || text[end - 1] === "`")) end = text.indexOf(ticks, end + 1);
  if (end < 0) return null;
  return [el("code", {}, text.slice(from, end).trim() || " "), end + ticks.length - found.index];
}

function anchor(href, children) {
  return el("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, children);
}

/** Shows a text that grows: blocks that have not changed keep their elements, so that nothing jumps and selections stay. */
export class Growing {
  constructor(where) {
    this.where = where;
    this.shown = [];
  }

  show(text) {
    const found = blocks(text);
    let same = 0;
    while (same < found.length && same < this.shown.length && found[same].text === this.shown[same].text && found[same].kind === this.shown[same].kind) same += 1;
    for (const { element: old } of this.shown.splice(same)) old.remove();
    for (const next of found.slice(same)) {
      const made = element(next);
      this.where.append(made);
      this.shown.push({ ...next, element: made });
    }
  }
}
