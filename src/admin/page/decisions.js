// The verdicts as they are given: filtered, paused, and each explained.

import { ask } from "./actions.js";
import { fillPeer, matches, words } from "./connections.js";
import { $, attr, breakable, el, show, text } from "./dom.js";
import { clock, count } from "./format.js";
import { link, note } from "./route.js";
import { Table } from "./table.js";
import * as verdict from "./verdict.js";
import * as whatif from "./whatif.js";

/** Rows that are drawn at first, and with each further step. */
const STEP = 60;

let app = null;
let table = null;
let limit = STEP;
/** The verdicts as they were when somebody stopped them. */
let held = null;
/** The verdict that is explained, and with which policy it was drawn. */
let chosen = null;
let drawnWith = null;

export function init(whole) {
  app = whole;
  table = new Table($("decisions-table"), [
    {
      name: "verdict", title: "Verdict", kind: "verdict",
      make: (cell, d) => cell.append(el("a", { href: link("decision", d.id), class: `verdict ${d.verdict === "deny" && !d.enforced ? "reported" : d.verdict}` }, d.verdict !== "deny" ? "✓ allow" : d.enforced ? "✕ deny" : "○ reported")),
      fill: () => {},
    },
    { name: "time", title: "Time", make: (cell, d) => attr(cell, "title", d.time), text: (d) => clock(d.time, app.state.now()) },
    { name: "peer", title: "Peer", kind: "peer", fill: (cell, d) => fillPeer(cell, d.peer_id, d.source ?? d.peer_addr) },
    { name: "listener", title: "Listener", text: (d) => d.listener },
    {
      name: "why", title: "Rule or reason", kind: "break",
      make: (cell, d) => {
        const marks = [];
        if (d.nearest) marks.push(`nearest: ${d.nearest.rule}`);
        if (d.check) marks.push(d.check.standard);
        if (!d.enforced) marks.push("it had no effect");
        if (d.kind !== "admission") marks.push(d.kind.replace("_", " "));
        if (d.candidate) marks.push(`candidate: ${d.candidate.verdict}`);
        cell.append(el("code", {}, ...breakable(d.rule ?? d.reason)), d.rule && d.reason ? el("small", { class: "muted" }, d.reason) : "", marks.length ? el("small", { class: "muted" }, marks.join(" · ")) : "");
      },
      fill: () => {},
    },
  ], { key: (d) => d.id, row: (node, d) => attr(node, "class", d.id === chosen?.id ? "chosen" : null) });
  // Anywhere in a row will do; by the keyboard it is the link.
  table.body.addEventListener("click", (event) => {
    if (!event.target.closest("a") && getSelection().isCollapsed) event.target.closest("tr")?.querySelector("a")?.click();
  });
  $("decisions-filter").addEventListener("input", () => {
    limit = STEP;
    if (chosen === null) note("decisions", $("decisions-filter").value);
    app.draw();
  });
  $("decisions-verdict").addEventListener("change", () => app.draw());
  $("decisions-pause").addEventListener("click", () => {
    held = held ? null : [...app.state.decisions];
    attr($("decisions-pause"), "aria-pressed", String(held !== null));
    app.draw();
  });
  $("decisions-more").addEventListener("click", () => {
    limit += STEP;
    app.draw();
  });
  $("decision-close").addEventListener("click", () => {
    const { id } = chosen ?? {};
    location.hash = link("decisions", $("decisions-filter").value);
    const row = [...table.body.querySelectorAll("a")].find((a) => a.getAttribute("href") === link("decision", id));
    (row ?? $("tab-decisions")).focus();
  });
  whatif.init(app);
}

export function open(_, where) {
  if (where.decision !== undefined) {
    choose(where.decision);
    return;
  }
  chosen = null;
  show($("decision"), false);
  if ($("decisions-filter").value !== where.value) $("decisions-filter").value = where.value;
  limit = STEP;
}

/** Rows that nobody sees are let go. */
export function leave() {
  table.update([]);
}

async function choose(id) {
  chosen = { id, decision: app.state.decision(id) };
  drawnWith = null;
  if (chosen.decision) {
    explain();
    reveal();
    return;
  }
  const wanted = chosen;
  try {
    wanted.decision = await ask(`/api/v1/decisions/${encodeURIComponent(id)}`);
    if (chosen === wanted) explain();
  } catch (error) {
    if (chosen === wanted) verdict.missing(id, error);
  }
  if (chosen === wanted) reveal();
}

function reveal() {
  $("decision-title").focus({ preventScroll: true });
  $("decision").scrollIntoView({ block: "nearest" });
}

// Drawn once, and again where the rules' text came or changed.
function explain() {
  if (!chosen?.decision || !app.state.status) return;
  const { policy } = app.state;
  const which = policy ? `${policy.generation} ${policy.content_hash}` : "none";
  if (drawnWith === which) return;
  drawnWith = which;
  verdict.render(chosen.decision, policy, app.state.now(), whatif.prefill);
}

export function render({ state }) {
  const wanted = words($("decisions-filter").value);
  const which = $("decisions-verdict").value;
  const source = held ?? state.decisions;
  const found = [];
  let more = false;
  // The newest first, and no further than is drawn.
  for (let at = source.length - 1; at >= 0; at -= 1) {
    const d = source[at];
    if (which && (d.verdict === "deny" && !d.enforced ? "reported" : d.verdict) !== which) continue;
    if (wanted.length && !matches(wanted, d, [d.peer_id, d.peer_addr, d.source, d.listener, d.rule, d.reason, d.nearest?.rule, d.id], d.connection)) continue;
    if (found.length === limit) {
      more = true;
      break;
    }
    found.push(d);
  }
  table.update(found);
  const waiting = held ? state.decisions.length - 1 - state.decisions.lastIndexOf(held.at(-1)) : 0;
  text($("decisions-pause"), held ? `Resume${waiting > 0 ? `, ${count(waiting)} new` : ""}` : "Pause");
  const parts = [`${count(source.length)} kept here`];
  if (state.lost > 0) parts.push(`${count(state.lost)} passed by too quickly`);
  text($("decisions-count"), parts.join(" · "));
  show($("decisions-more"), more);
  text($("decisions-more"), `Show ${STEP} more`);
  explain();
  whatif.render(app);
}
