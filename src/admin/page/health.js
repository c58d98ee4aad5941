// How the process is: readiness, limits, latency, evidence, what was lost, and how much it says.

import * as actions from "./actions.js";
import { only } from "./connections.js";
import { $, attr, cssVar, el, facts, keyed, say, show, text } from "./dom.js";
import { ago, bytes, count, counted, duration, latency, millis, short } from "./format.js";
import { link } from "./route.js";
import { Table } from "./table.js";

let app = null;
let listeners = null;
let cpuBefore = null;
let cpu = null;
let level = null;
let levelAskedAt = -Infinity;

const LEVEL_SECONDS = 10;
const CONDITIONS = { identity: "Identity", policy: "Policy", listeners: "Listeners", not_draining: "Not draining", audit: "Audit log" };
const LIMITS = { max_connections: "Connections", max_handshakes: "Handshakes at once", open_files: "Open files" };
const LOSSES = { log_lines: "Log lines", decisions: "Decisions", access_log_lines: "Access log lines", spans: "Trace spans" };
const called = (names, name) => names[name] ?? name.replaceAll("_", " ");

export function init(whole) {
  app = whole;
  const results = (l) => Object.values(l.results).reduce((sum, n) => sum + n, 0);
  const number = (name, title, value) => ({ name, title, kind: "number", value, first: "descending", text: (l) => count(value(l)) });
  listeners = new Table($("listeners"), [
    { name: "name", title: "Listener", kind: "peer", value: (l) => l.name, make: (cell, l) => cell.append(el("a", { class: "strong", href: link("connections", only("listener", l.name)) }, l.name), el("small", { class: "muted mono break" }, `${l.direction} · ${l.listen} → ${l.upstream}`)), fill: () => {} },
    number("open", "Open", (l) => l.open),
    number("ended", "Ended", results),
    number("ok", "Ok", (l) => l.results.ok),
    { name: "bad", title: "Otherwise", kind: "break reasons", value: (l) => results(l) - l.results.ok, first: "descending", fill: fillReasons },
    { name: "up", title: "Up", kind: "number", value: (l) => l.bytes_up, first: "descending", text: (l) => bytes(l.bytes_up) },
    { name: "down", title: "Down", kind: "number", value: (l) => l.bytes_down, first: "descending", text: (l) => bytes(l.bytes_down) },
    { name: "handshakes", title: "Handshakes", kind: "number", value: (l) => l.handshakes.full + l.handshakes.resumed, first: "descending", text: (l) => `${count(l.handshakes.full)} full, ${count(l.handshakes.resumed)} resumed` },
  ], { key: (l) => l.name, changed: () => app.draw() });
  $("log-change").addEventListener("click", async () => {
    const answer = await actions.confirm({
      title: "Change the log level",
      explanation: "Until the next change or restart. A level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or a list such as `info,svidecar::identity=debug`.",
      yes: "Change it",
      method: "PUT",
      path: "/api/v1/log",
      label: "Level",
      value: level ?? "info",
    }, app.changes);
    if (answer) level = answer.level;
    app.draw();
  });
}

export function open() {
  if (levelAskedAt !== Infinity) levelAskedAt = -Infinity;
}

function fillReasons(cell, listener) {
  const reasons = Object.entries(listener.reasons).filter(([reason]) => reason !== "finished");
  keyed(cell, reasons, ([reason]) => reason,
    ([reason]) => el("a", { class: "chip", href: link("decisions", `${only("listener", listener.name)} ${only("reason", reason)}`) }, el("code", {}, reason), " ", el("span")),
    (node, [, number]) => text(node.lastChild, count(number)));
}

function askLevel() {
  if (performance.now() - levelAskedAt < LEVEL_SECONDS * 1000) return;
  levelAskedAt = performance.now();
  actions.ask("/api/v1/log").then((answer) => {
    level = answer.level;
    app.draw();
  }).catch((error) => {
    // An endpoint that does not tell is not asked again.
    if (error.status === 404 || error.status === 403) levelAskedAt = Infinity;
  });
}

export function render({ state, changes }) {
  const { status } = state;
  const now = state.now();
  keyed($("conditions"), status.readiness.conditions, (c) => c.name,
    (c) => el("li", {}, el("strong"), el("span", { class: "break" }, called(CONDITIONS, c.name)), el("small", { class: "muted break" })),
    (node, c) => {
      attr(node, "class", c.ok ? "good" : "bad");
      text(node.firstChild, c.ok ? "✓" : "✕");
      text(node.lastChild, c.detail || (c.ok ? "holds" : "does not hold"));
    });
  keyed($("limits"), Object.entries(status.limits), ([name]) => name,
    ([name]) => el("li", {}, el("span", {}, called(LIMITS, name)), el("span", { class: "number" }), el("div", { class: "life", role: "meter", "aria-label": called(LIMITS, name), "aria-valuemin": "0" }, el("i"))),
    (node, [, { limit, used }]) => {
      const part = limit > 0 ? Math.min(1, used / limit) : 0;
      text(node.children[1], `${count(used)} of ${limit > 0 ? count(limit) : "no limit"}`);
      const bar = node.lastChild;
      attr(bar, "aria-valuemax", limit);
      attr(bar, "aria-valuenow", used);
      attr(bar, "class", `life ${part > 0.95 ? "bad" : part > 0.8 ? "warn" : "good"}`);
      cssVar(bar, "--left", part.toFixed(4));
    });
  renderProcess(status, now);
  renderAudit(status.audit, now);
  facts($("losses"), Object.entries(status.losses).map(([name, lost]) => [called(LOSSES, name), lost > 0 ? el("span", { class: "bad" }, `${count(lost)} lost`) : "none"]));
  text($("log-level"), level ?? "…");
  show($("log-change"), changes !== "none" && level !== null);
  askLevel();
  listeners.update(status.listeners);
  keyed($("histograms"), status.listeners, (l) => l.name, makeHistogram, fillHistogram);
}

function renderProcess({ process, time, started }, now) {
  const at = millis(time);
  if (cpuBefore && at > cpuBefore.at) cpu = ((process.cpu_seconds - cpuBefore.used) / (at - cpuBefore.at)) * 1000;
  if (!cpuBefore || at > cpuBefore.at) cpuBefore = { at, used: process.cpu_seconds };
  facts($("process"), [
    ["CPU", cpu === null ? duration(process.cpu_seconds) : `${(cpu * 100).toFixed(1)} % of a core · ${duration(process.cpu_seconds)} in all`],
    ["Memory", bytes(process.resident_bytes)],
    ["Threads", count(process.threads)],
    ["Up", duration((now - millis(started)) / 1000)],
  ]);
}

function renderAudit(audit, now) {
  text($("audit-state"), !audit ? "none" : audit.failing ? "✕ failing" : "✓ written");
  attr($("audit-state"), "class", `tag ${!audit ? "" : audit.failing ? "bad" : "good"}`);
  say($("audit-problem"), audit?.failing && `${audit.failing}. New connections are ${audit.on_failure === "deny" ? "refused" : "let in all the same, and counted"}.`);
  if (!audit) return facts($("audit"), [["File", "no audit log is kept: audit.file names none"]]);
  const behind = audit.head_seq - audit.durable_seq;
  facts($("audit"), [
    ["File", el("span", { class: "mono break" }, audit.file)],
    ["Records", `${count(audit.records)}${behind > 0 ? `, ${count(behind)} not on disk yet` : ", all on disk"}`],
    ["Head", audit.head && el("span", { class: "mono break", title: audit.head }, `${short(audit.head, 16)} (${audit.head_seq})`)],
    ["Checkpoint", audit.last_checkpoint ? ago(audit.last_checkpoint, now) : "none yet"],
    ["When it fails", audit.on_failure === "deny" ? "new connections are refused" : "it goes on, and counts"],
    ["Lost", audit.lost > 0 ? el("span", { class: "bad" }, count(audit.lost)) : null],
    ...audit.sinks.map((sink) => {
      const words = sink.lag > 0 || sink.problem ? `${counted(sink.lag, "record")} behind` : "up to date";
      const parts = [words, sink.lost > 0 && `${counted(sink.lost, "record")} it will never get`, sink.problem].filter(Boolean).join("; ");
      return [`Sink ${sink.name}`, sink.problem || sink.lost > 0 ? el("span", { class: "bad" }, parts) : parts];
    }),
  ]);
}

const makeHistogram = (listener) =>
  el("figure", { class: "histogram" }, el("figcaption", {}, el("strong", {}, listener.name), " ", el("span", { class: "muted" })), el("ol"));

/** The bound below which this part of the handshakes was. */
function quantile({ count: all, buckets }, part) {
  let seen = 0;
  for (const { le, count: number } of buckets) {
    seen += number;
    if (seen >= all * part) return le;
  }
  return null;
}

function fillHistogram(node, { handshake_seconds: histogram, name }) {
  const [caption, bars] = node.children;
  const { buckets } = histogram;
  const bound = (part) => {
    const le = quantile(histogram, part);
    return le === null ? "above all" : `≤ ${latency(le)}`;
  };
  text(caption.lastChild, histogram.count === 0 ? "no handshake yet" : `${counted(histogram.count, "handshake")} · half ${bound(0.5)} · 99 % ${bound(0.99)} · mean ${latency(histogram.sum / histogram.count)}`);
  const used = buckets.map(({ count: number }, place) => (number > 0 ? place : -1)).filter((place) => place >= 0);
  const from = Math.max(0, (used[0] ?? 0) - 1), to = Math.min(buckets.length, (used.at(-1) ?? -1) + 2);
  const shown = histogram.count === 0 ? [] : buckets.slice(from, to);
  const most = Math.max(1, ...shown.map((bucket) => bucket.count));
  keyed(bars, shown, ({ le }) => `${name} ${le}`,
    ({ le }) => el("li", {}, el("span", { class: "amount" }), el("i", { "aria-hidden": "true" }), el("span", { class: "le" }, le === null ? "more" : `≤ ${latency(le)}`)),
    (bar, { count: number }) => {
      text(bar.firstChild, number > 0 ? count(number) : "");
      cssVar(bar, "--part", (number / most).toFixed(4));
    });
}
