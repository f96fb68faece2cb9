// A figure over the last minutes as a line, drawn as SVG: one colour, one unit, its highest value named.

import { el, setText, svg } from "./dom.js";
import { short } from "./units.js";

const WIDTH = 300;
const HEIGHT = 72;

/** A plot of one or two lines over `minutes`; `show(samples)` draws `[{at_ms, …}]`. */
export class Plot {
  constructor(title, unit, minutes, lines) {
    Object.assign(this, { unit, span: minutes * 60_000, lines });
    this.value = el("span", { className: "value" });
    this.top = el("span", { className: "top" });
    this.paths = lines.map(({ className }) => svg("path", { class: className, fill: "none", "vector-effect": "non-scaling-stroke" }));
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, this.paths);
    this.picture = picture;
    const names = lines.length > 1 ? lines.map(({ name, className }) => el("span", { className: `key ${className}` }, name)) : [];
    this.element = el("figure", { className: "plot" }, el("figcaption", {}, el("span", {}, title), names, this.value), this.top, picture);
    this.title = title;
  }

  show(samples) {
    const now = samples.at(-1)?.at_ms ?? 0;
    const values = samples.flatMap((sample) => this.lines.map(({ of }) => of(sample))).filter(Number.isFinite);
    const most = Math.max(...values, 0);
    const high = most > 0 ? most : 1;
    for (const [at, { of }] of this.lines.entries()) this.paths[at].setAttribute("d", this.path(samples, of, now, high));
    const last = this.lines.map(({ of }) => of(samples.at(-1) ?? {})).filter(Number.isFinite);
    setText(this.value, last.length ? `${last.map(short).join(" / ")} ${this.unit}` : "–");
    setText(this.top, values.length ? `${short(most)}` : "");
    this.picture.setAttribute("aria-label", `${this.title}: now ${this.value.textContent}, at most ${short(most)} ${this.unit} in the last ${this.span / 60_000} minutes`);
  }

  path(samples, of, now, high) {
    let path = "";
    let pen = "M";
    for (const sample of samples) {
      const value = of(sample);
      if (!Number.isFinite(value)) {
        pen = "M";
        continue;
      }
      const x = WIDTH * (1 - (now - sample.at_ms) / this.span);
      const y = HEIGHT - 2 - (HEIGHT - 6) * (value / high);
      path += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
    }
    return path;
  }
}
