// Makes elements. Text is always text: nothing that comes from a model, a worker or a server can become markup here, as no
// function of this page parses any.

/**
 * An element. `properties` are set as properties (`className`, `hidden`, `onclick`), those with a dash (`aria-label`) and
 * `role`, `for`, `list` as attributes; children are elements or text, what is null, undefined or false is left out.
 */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An element of a picture; all properties are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...given(children));
  return element;
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.includes("-") || name === "role" || name === "for" || name === "list") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...given(children));
  return element;
}

function given(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Sets a text only where it is another one, so that what is selected stays selected. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the children of an element be as the ones given, and keeps those that are there where only their words have changed: what
 * has the focus keeps it, and a button that is being pressed stays the one that is pressed.
 */
export function morph(where, children) {
  const wanted = [children].flat(Infinity).filter(Boolean);
  for (const [at, child] of wanted.entries()) {
    const present = where.childNodes[at];
    if (!present) where.append(child);
    else if (present.nodeName !== child.nodeName) present.replaceWith(child);
    else become(present, child);
  }
  while (where.childNodes.length > wanted.length) where.lastChild.remove();
}

function become(present, wanted) {
  if (present.nodeType === Node.TEXT_NODE) {
    if (present.data !== wanted.data) present.data = wanted.data;
    return;
  }
  for (const { name } of [...present.attributes]) if (!wanted.hasAttribute(name) && name !== "style") present.removeAttribute(name);
  for (const { name, value } of wanted.attributes) if (name !== "style" && present.getAttribute(name) !== value) present.setAttribute(name, value);
  if (present.style.cssText !== wanted.style.cssText) present.style.cssText = wanted.style.cssText;
  present.onclick = wanted.onclick;
  morph(present, [...wanted.childNodes]);
}

/** A button with words on it. */
export function button(text, onclick, properties = {}) {
  return el("button", { type: "button", onclick, ...properties }, text);
}

/** Asks before something is done: resolves to whether it was confirmed. */
export function confirmed(question, detail, yes) {
  return new Promise((resolve) => {
    const close = (answer) => () => {
      dialog.close();
      dialog.remove();
      resolve(answer);
    };
    const no = button("Cancel", close(false));
    const dialog = el(
      "dialog",
      { "aria-label": question, oncancel: () => { dialog.remove(); resolve(false); } },
      el("h2", {}, question),
      el("p", {}, detail),
      el("div", { className: "actions" }, no, button(yes, close(true), { className: "danger" })),
    );
    document.body.append(dialog);
    dialog.showModal();
    no.focus();
  });
}
