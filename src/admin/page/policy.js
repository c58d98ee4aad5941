// The policy in force: what its rules did, what is unused, what a candidate would change, and what is wrong with the files.

import * as actions from "./actions.js";
import { only } from "./connections.js";
import { $, attr, breakable, el, facts, prose, show, text } from "./dom.js";
import { ago, clock, count, counted, identity, millis, short } from "./format.js";
import { link } from "./route.js";
import { ruleText } from "./ruletext.js";
import { Table } from "./table.js";

let app = null;
let rules, divergences, entries;

export function init(whole) {
  app = whole;
  const now = () => app.state.now();
  rules = new Table($("rules"), [
    {
      name: "name", title: "Rule", kind: "rulename", value: (r) => r.name,
      make: (cell, r) => fillRule(cell, r),
      fill: (cell, r) => fillRule(cell, r),
    },
    { name: "verdict", title: "Does", value: (r) => r.verdict, make: (cell, r) => cell.append(el("span", { class: `verdict ${r.verdict}` }, MARKS[r.verdict] ?? r.verdict)), fill: () => {} },
    { name: "listener", title: "At listener", value: (r) => r.listener, text: (r) => r.listener ?? "all" },
    { name: "hits", title: "Hits", kind: "number", value: (r) => r.hits, first: "descending", fill: (cell, r) => {
      text(cell, r.hits === null ? "not counted" : r.hits === 0 ? "unused" : count(r.hits));
      attr(cell, "class", r.hits === 0 && r.name ? "number warn" : r.hits ? "number" : "number muted");
    } },
    { name: "last", title: "Last hit", kind: "number", value: (r) => (r.last_hit ? millis(r.last_hit) : null), first: "descending", fill: (cell, r) => {
      text(cell, r.last_hit ? ago(r.last_hit, now()) : "–");
      attr(cell, "title", r.last_hit);
    } },
  ], { key: (r) => `${r.listener} ${r.name} ${r.verdict}`, sort: { name: "hits", order: "descending" }, row: (node, r) => attr(node, "class", r.hits === 0 ? "unused" : null), changed: () => app.draw() });
  divergences = new Table($("divergences"), [
    { name: "peer", title: "Peer", kind: "peer", value: (d) => d.peer_id, make: (cell, d) => cell.append(el("a", { class: "mono break", href: link("decisions", only("peer", d.peer_id)) }, ...breakable(identity(d.peer_id).path || d.peer_id))), fill: () => {} },
    { name: "change", title: "Change", value: (d) => d.change, make: (cell, d) => cell.append(el("span", { class: `verdict ${d.change === "would_deny" ? "deny" : "allow"}` }, d.change === "would_deny" ? "✕ would deny" : "✓ would allow")), fill: () => {} },
    { name: "rule", title: "Now by", kind: "mono break", text: (d) => d.rule ?? "no rule" },
    { name: "candidate", title: "Then by", kind: "mono break", text: (d) => d.candidate_rule ?? "no rule" },
    { name: "count", title: "Times", kind: "number", value: (d) => d.count, first: "descending", text: (d) => count(d.count) },
    { name: "last", title: "Last", kind: "number", value: (d) => millis(d.last), first: "descending", text: (d) => ago(d.last, now()) },
  ], { key: (d) => [d.listener, d.peer_id, d.change, d.rule, d.candidate_rule].join(" "), sort: { name: "count", order: "descending" }, changed: () => app.draw() });
  entries = new Table($("deny-entries"), [
    { name: "name", title: "Entry", kind: "mono break", value: (e) => e.name, text: (e) => e.name },
    { name: "description", title: "Why", text: (e) => e.description ?? "" },
    { name: "place", title: "Where", kind: "mono break", text: (e) => `${e.file}:${e.line}` },
  ], { key: (e) => `${e.file} ${e.line} ${e.name}`, changed: () => app.draw() });
  $("rules-unused").addEventListener("change", () => app.draw());
  $("policy-reload").addEventListener("click", () => actions.confirm({
    title: "Read the policy files again?",
    explanation: "Policy, deny list and candidate are read now. What is wrong is refused, and the last good ones stay in force.",
    yes: "Read them",
    method: "POST",
    path: "/api/v1/reload",
  }, app.changes));
}

const MARKS = { allow: "✓ allow", deny: "✕ deny", audit: "○ mark" };

// The rule's text opens below its name. Made when it is opened, and anew when the policy is another one.
function fillRule(cell, rule) {
  const full = app.state.policy?.rules.find((one) => one.name === rule.name) ?? null;
  const which = `${rule.name} ${full ? app.state.policy.content_hash : ""}`;
  if (cell.dataset.rule === which) return;
  cell.dataset.rule = which;
  if (!full) {
    cell.replaceChildren(el("span", { class: "mono break" }, ...breakable(rule.name || "default: no rule matched")));
    return;
  }
  const details = el("details", {}, el("summary", {}, el("span", { class: "mono break" }, rule.name)));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(ruleText(full));
  });
  cell.replaceChildren(details, full.description ? el("small", { class: "muted" }, full.description) : "", full.expires ? el("small", { class: "muted" }, `until ${clock(full.expires, app.state.now())}`) : "");
}

/** What is wrong with the files, with the line where it says so. */
function problem(box, reload, stays) {
  const failed = reload?.result === "failure";
  show(box, failed);
  const which = failed ? `${reload.at} ${reload.problems.join("\n")}` : "";
  if (box.dataset.which === which) return;
  box.dataset.which = which;
  box.replaceChildren();
  if (!failed) return;
  box.append(el("strong", {}, `The files could not be used at ${clock(reload.at, app.state.now())}. ${stays}`));
  for (const words of reload.problems.slice(0, 20)) box.append(el("pre", {}, words));
  if (reload.problems.length > 20) box.append(el("p", {}, `and ${reload.problems.length - 20} more`));
}

export function render({ state, changes }) {
  const { policy } = state.status;
  const now = state.now();
  text($("policy-mode"), policy.mode === "audit" ? "audit: decides and reports, refuses nobody" : "enforced");
  attr($("policy-mode"), "class", policy.mode === "audit" ? "tag warn" : "tag");
  show($("policy-reload"), changes !== "none");
  facts($("policy-facts"), [
    ["Generation", count(policy.generation)],
    ["Since", policy.since && `${clock(policy.since, now)} (${ago(policy.since, now)})`],
    ["Files", policy.path && el("span", { class: "mono break" }, policy.path)],
    ["Content hash", policy.content_hash && el("span", { class: "mono", title: policy.content_hash }, short(policy.content_hash, 12))],
    ["Last read", policy.last_reload && ago(policy.last_reload.at, now)],
  ]);
  problem($("policy-problem"), policy.last_reload, `Generation ${policy.generation} stays in force.`);
  renderRules(state, policy);
  renderCandidate(policy.candidate, now);
  renderDenyList(policy.deny_list, state);
}

function renderRules(state, policy) {
  const marking = (state.policy?.rules ?? []).filter((rule) => rule.action === "audit");
  const all = [...policy.rules, ...marking.map((rule) => ({ name: rule.name, listener: rule.to?.join(", ") ?? null, verdict: "audit", hits: null, last_hit: null }))];
  const unused = policy.rules.filter((rule) => rule.hits === 0 && rule.name);
  rules.update($("rules-unused").checked ? unused : all);
  // Of all: what never decided comes last in a list that has an end.
  const parts = [policy.rules_unused_total > 0 ? `${count(policy.rules_unused_total)} unused so far` : "all in use"];
  if (policy.rules_total > policy.rules.length) parts.push(`the first ${count(policy.rules.length)} of ${count(policy.rules_total)} are shown`);
  text($("rules-count"), parts.join(" · "));
}

function renderCandidate(candidate, now) {
  const read = Boolean(candidate && candidate.generation > 0);
  text($("candidate-summary"), read ? `generation ${candidate.generation} · ${counted(candidate.rules, "rule")} · ${short(candidate.content_hash, 12)}` : "");
  problem($("candidate-problem"), candidate?.last_reload, read ? `Generation ${candidate.generation} is still asked.` : "There is none to ask.");
  const found = candidate?.divergences ?? [];
  show($("divergences"), found.length > 0);
  divergences.update(found);
  if (!candidate) return text($("candidate-note"), "None is named. With policy.candidate, another policy is asked beside this one, and what it would decide otherwise stands here.");
  if (!read) return text($("candidate-note"), "");
  const hidden = candidate.divergences_not_listed ? `; ${count(candidate.divergences_not_listed)} further are not listed` : "";
  text($("candidate-note"), `Since ${clock(candidate.since, now)} it would have denied ${count(candidate.would_deny)} and allowed ${count(candidate.would_allow)} that were decided otherwise; of the open connections it would not admit ${count(candidate.open_connections_denied)}${hidden}.`);
}

function renderDenyList(list, state) {
  problem($("deny-list-problem"), list?.last_reload, `Generation ${list?.generation ?? 0} stays in force.`);
  // The entries come with the policy's text.
  const known = state.policy?.deny_list?.entries ?? list?.entries ?? [];
  text($("deny-list-summary"), list ? `generation ${list.generation} · ${counted(known.length, "entry")} · ${short(list.content_hash, 12)}` : "");
  show($("deny-entries"), known.length > 0);
  entries.update(known.slice(0, 200));
  if (!list) text($("deny-list-note"), "None is named. With policy.deny_list, whom it names is refused whatever the rules say.");
  else text($("deny-list-note"), known.length === 0 ? "It names nobody." : known.length > 200 ? "The first 200 are shown." : "");
}
