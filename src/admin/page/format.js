// Numbers, times and identities as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Three digits that matter, and a unit of thousands. */
export function bytes(count) {
  let value = count, unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : digits(value)} ${UNITS[unit]}`;
}

export const rate = (perSecond) => (perSecond < 0.5 ? "0 B/s" : `${bytes(perSecond)}/s`);

const digits = (value) => value.toFixed(value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);

/** Events a second. */
export const perSecond = (value) => `${value === 0 ? "0" : value < 10 ? value.toFixed(1) : count(Math.round(value))}/s`;

const GROUPS = new Intl.NumberFormat("en", { useGrouping: true });

/** A count with its thousands apart. */
export const count = (value) => GROUPS.format(value);

/** `1 rule`, `2 rules`. */
export const counted = (number, word) => `${count(number)} ${number === 1 ? word : word.endsWith("y") ? `${word.slice(0, -1)}ies` : `${word}s`}`;

/** The two largest units of a length of time in seconds. */
export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 600) return s % 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s / 60} min`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return pair(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return s < 10 * 86400 ? pair(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h") : `${Math.floor(s / 86400)} d`;
}

const pair = (much, unit, little, smaller) => (little ? `${much} ${unit} ${little} ${smaller}` : `${much} ${unit}`);

/** Seconds with a unit that fits. */
export function latency(seconds) {
  if (seconds === 0) return "0";
  if (seconds < 0.001) return `${trim(seconds * 1e6)} µs`;
  return seconds < 1 ? `${trim(seconds * 1e3)} ms` : `${trim(seconds)} s`;
}

const trim = (value) => String(Number(value.toPrecision(2)));

/** The milliseconds of an RFC 3339 time; `NaN` where there is none. */
export const millis = (time) => (time ? Date.parse(time) : NaN);

/** The time of day here; with the day where it is another one. */
export function clock(time, now) {
  const at = new Date(millis(time));
  if (Number.isNaN(at.getTime())) return "–";
  const hms = at.toLocaleTimeString("en-GB");
  return at.toDateString() === new Date(now).toDateString() ? hms : `${day(at, new Date(now))} ${hms}`;
}

const day = (at, now) => at.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: at.getFullYear() === now.getFullYear() ? undefined : "numeric" });

/** How long ago. */
export function ago(time, now) {
  const past = (now - millis(time)) / 1000;
  if (Number.isNaN(past)) return "never";
  return past < 2 ? "just now" : `${duration(past)} ago`;
}

/** An ID's trust domain and path; of what is no ID, the text itself as name. */
export function identity(id) {
  const match = /^spiffe:\/\/([^/]+)(\/.*)?$/.exec(id ?? "");
  if (!match) return { domain: null, path: id ?? "", name: id ?? "" };
  const path = match[2] ?? "/";
  const segments = path.split("/").filter(Boolean);
  // Kubernetes' usual form says namespace and account; the words between say nothing.
  const kubernetes = segments.length === 4 && segments[0] === "ns" && segments[2] === "sa";
  const name = kubernetes ? `${segments[1]}/${segments[3]}` : segments.slice(-2).join("/") || match[1];
  return { domain: match[1], path, name };
}

/** The beginning of something long, and how it goes on. */
export const short = (value, length = 12) => (value && value.length > length + 1 ? `${value.slice(0, length)}…` : value ?? "–");
