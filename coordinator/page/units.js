// Figures as people read them. Shapes of values are those of docs/operating.md: bytes, milliseconds, microseconds.

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes: `3.5 GiB`. */
export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < SIZES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${short(value)} ${SIZES[unit]}`;
}

/** Three digits at most: `0.42`, `4.2`, `42`, `4,200`. */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const digits = size === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** Milliseconds: `350 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`. */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** Microseconds: `0.35 ms`, `12 ms`. */
export function micros(us) {
  return us >= 1e6 ? `${short(us / 1e6)} s` : `${short(us / 1000)} ms`;
}

/** A moment of today as the clock of this machine shows it. */
export function clock(atMs) {
  return new Date(atMs).toLocaleTimeString([], { hour12: false });
}

/** `1 worker`, `2 workers`. */
export function count(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}
