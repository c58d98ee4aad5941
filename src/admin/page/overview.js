// The overview that stays on top: ready, who, how much, how many denied. The tab's title and icon say it, too.

import { $, attr, cssVar, el, svg, text } from "./dom.js";
import { bytes, count, duration, identity, millis, perSecond, rate } from "./format.js";

/** A life of which less than this is left is worth a look, then an alarm: by then a rotation is overdue. */
const WARN = 0.3, ALARM = 0.1;

/** How much of an SVID's life is left: seconds, and the part of the whole. */
export function life(svid, now) {
  if (!svid) return { seconds: 0, part: 0, mood: "bad" };
  const from = millis(svid.not_before), to = millis(svid.not_after);
  const seconds = (to - now) / 1000;
  const part = Math.min(1, Math.max(0, (to - now) / (to - from)));
  return { seconds, part, mood: part < ALARM ? "bad" : part < WARN ? "warn" : "good" };
}

function spark(node, values, most) {
  const wide = 72, high = 20;
  attr(node, "viewBox", `0 0 ${wide} ${high}`);
  const top = Math.max(most, ...values);
  const step = wide / Math.max(1, values.length - 1);
  const points = values.map((value, place) => `${(place * step).toFixed(1)},${(high - 1.5 - (value / top) * (high - 3)).toFixed(1)}`);
  if (!node.firstChild) node.append(svg("polygon", { class: "area" }), svg("polyline", { class: "line" }));
  attr(node.lastChild, "points", points.join(" "));
  attr(node.firstChild, "points", points.length > 1 ? `0,${high} ${points.join(" ")} ${wide},${high}` : "");
}

export function render({ state }) {
  const { status } = state;
  const now = state.now();
  const { ready } = status.readiness;
  text($("ready"), ready ? "✓ ready" : "✕ not ready");
  attr($("ready"), "class", `pill ${ready ? "good" : "bad"}`);
  const { svid } = status.identity;
  text($("own-id"), svid?.id ?? "no identity");
  attr($("own-id"), "title", svid?.id);
  const left = life(svid, now);
  cssVar($("own-life"), "--left", left.part.toFixed(4));
  attr($("own-life"), "class", `life ${left.mood}`);
  text($("own-left"), svid ? (left.seconds > 0 ? `${duration(left.seconds)} left` : "expired") : "");
  text($("tile-open"), count(status.connections.total));
  text($("tile-new"), perSecond(state.accepted));
  text($("tile-rate"), rate(state.throughput.at(-1) ?? 0));
  spark($("spark-rate"), state.throughput, 1000);
  const denied = state.denied(30);
  const sum = denied.reduce((all, number) => all + number, 0);
  text($("tile-denied"), count(sum));
  attr($("tile-denied"), "class", sum > 0 ? "bad" : null);
  spark($("spark-denied"), denied, 3);
  text($("count-connections"), status.connections.total || "");
  const failed = (document_) => document_?.last_reload?.result === "failure";
  text($("count-policy"), failed(status.policy) || failed(status.policy.deny_list) || failed(status.policy.candidate) ? "!" : "");
  const { audit } = status;
  const evidence = audit && (audit.failing || audit.lost > 0 || audit.sinks.some((sink) => sink.problem || sink.lost > 0));
  const troubled = !ready || evidence || Object.values(status.losses).some((lost) => lost > 0);
  text($("count-health"), troubled ? "!" : "");
  const { version, pid, process } = status;
  const up = duration((now - millis(status.started)) / 1000);
  text($("foot"), `svidecar ${version} · process ${pid} · up ${up} · ${bytes(process.resident_bytes)} resident`);
}

let iconMood = null;

/** For the tab in the background, where no frame is drawn. */
export function title({ state }) {
  const { ready } = state.status.readiness;
  const who = identity(state.status.identity.svid?.id).name || "svidecar";
  const wanted = `${ready ? "" : "✕ not ready: "}${who} – svidecar`;
  if (document.title !== wanted) document.title = wanted;
  if (iconMood === ready) return;
  iconMood = ready;
  const colour = ready ? "%230f8a6d" : "%23c4321f";
  const drawing = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'><path fill='${colour}' d='M12 2 4 5v6c0 5 3.400 9.300 8 11 4.600-1.700 8-6 8-11V5z'/></svg>`;
  $("icon").replaceWith(el("link", { rel: "icon", id: "icon", href: `data:image/svg+xml,${drawing}` }));
}
