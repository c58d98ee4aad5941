// What is going on now: our identity, the picture of peers, the latest denials.

import { $, attr, breakable, cssVar, el, facts, keyed, say, text } from "./dom.js";
import { ago, clock, count, counted, duration, identity, millis, short } from "./format.js";
import { life } from "./overview.js";
import * as map from "./map.js";
import { link } from "./route.js";
import { isDenied } from "./state.js";
import { Table } from "./table.js";

/** Denials that are shown here; all are among the decisions. */
const LATEST = 6;
/** An authority lives a day or longer, and its follower is there long before its end: seconds at which that is overdue. */
const BUNDLE_WARN = 4 * 3600, BUNDLE_ALARM = 3600;

let bundles, rotations;
let app = null;

export function init(whole) {
  app = whole;
  const now = () => app.state.now();
  bundles = new Table($("bundles"), [
    { name: "domain", title: "Trust domain", text: (b) => b.trust_domain, kind: "mono break" },
    { name: "roots", title: "Roots", text: (b) => count(b.authorities), kind: "number" },
    {
      name: "ends", title: "Ends", kind: "number",
      fill: (cell, b) => {
        const left = (millis(b.not_after) - now()) / 1000;
        text(cell, b.not_after ? (left > 0 ? `in ${duration(left)}` : "ended") : "–");
        attr(cell, "title", b.not_after);
        attr(cell, "class", left < BUNDLE_ALARM ? "number bad" : left < BUNDLE_WARN ? "number warn" : "number");
      },
    },
  ], { key: (b) => b.trust_domain });
  rotations = new Table($("rotations"), [
    { name: "time", title: "Taken", make: (cell, r) => attr(cell, "title", r.time), text: (r) => clock(r.time, now()) },
    { name: "serial", title: "Serial", kind: "mono", make: (cell, r) => attr(cell, "title", r.serial), text: (r) => short(r.serial, 10) },
    { name: "until", title: "Until", kind: "number", make: (cell, r) => attr(cell, "title", r.not_after), text: (r) => clock(r.not_after, now()) },
  ], { key: (r) => `${r.serial} ${r.time}` });
  map.init(app);
}

export function render({ state }) {
  renderIdentity(state);
  map.render(app);
  renderDenials(state);
}

function renderIdentity(state) {
  const own = state.status.identity;
  const { svid } = own;
  const now = state.now();
  text($("agent"), own.connected ? "✓ agent connected" : "✕ agent gone");
  attr($("agent"), "class", `tag ${own.connected ? "good" : "bad"}`);
  const id = svid?.id ?? "no identity yet";
  if ($("svid-id").textContent !== id) $("svid-id").replaceChildren(...breakable(id));
  const left = life(svid, now);
  const bar = $("svid-life");
  cssVar(bar, "--left", left.part.toFixed(4));
  attr(bar, "class", `life thick ${left.mood}`);
  attr(bar, "aria-valuenow", Math.round(left.part * 100));
  const words = svid ? (left.seconds > 0 ? `${duration(left.seconds)} left` : "expired") : own.detail;
  attr(bar, "aria-valuetext", words);
  text($("svid-left"), words);
  text($("svid-until"), svid ? `${clock(svid.not_before, now)} – ${clock(svid.not_after, now)}` : "");
  const problem = own.problem ?? (own.status === "ready" ? null : own.detail);
  say($("identity-problem"), problem);
  facts($("svid-facts"), [
    ["Serial", svid && el("span", { class: "mono", title: svid.serial }, short(svid.serial, 20))],
    ["Key", svid?.key_type],
    ["Hint", svid?.hint],
    ["Rotations", svid && count(own.rotations)],
    ["Last update", own.last_update && ago(own.last_update, now)],
    ["Others offered", own.svids.length > 1 ? counted(own.svids.length - 1, "SVID") : null],
  ]);
  bundles.update(own.bundles);
  rotations.update(own.recent_rotations.slice(0, 4));
}

function renderDenials(state) {
  const latest = [];
  for (let at = state.decisions.length - 1; at >= 0 && latest.length < LATEST; at -= 1) {
    if (state.decisions[at].verdict === "deny") latest.push(state.decisions[at]);
  }
  const list = $("denials");
  if (latest.length === 0) {
    keyed(list, [{ id: "none" }], (d) => d.id, () => el("li", { class: "muted" }, "Nobody was denied, as far as verdicts are kept."), () => {});
    return;
  }
  keyed(list, latest, (d) => d.id, makeDenial, (node, d) => text(node.querySelector("time"), ago(d.time, state.now())));
}

function makeDenial(decision) {
  const who = decision.peer_id ? identity(decision.peer_id).name : decision.source ?? decision.peer_addr;
  const way = decision.direction === "inbound" ? `to ${decision.listener}` : `behind ${decision.listener}`;
  return el("li", {},
    el("a", { href: link("decision", decision.id), title: decision.peer_id ?? "" },
      isDenied(decision) ? el("span", { class: "verdict deny" }, "✕") : el("span", { class: "verdict reported", title: "reported alone: it had no effect" }, "○ reported"), " ",
      el("strong", {}, who), ` ${way} `,
      el("code", {}, decision.reason ?? ""),
      decision.nearest ? el("span", { class: "muted" }, ` nearest: ${decision.nearest.rule}`) : null),
    el("time", { class: "muted", datetime: decision.time }));
}
