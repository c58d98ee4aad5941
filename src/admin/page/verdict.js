// One verdict, explained: who, where, why, what came nearest, and the text of the rule that this is about.

import { $, breakable, el, facts, prose, show, text } from "./dom.js";
import { clock, identity } from "./format.js";
import { link } from "./route.js";
import { ruleText, unmetList } from "./ruletext.js";

const KINDS = {
  admission: "asked to be let in",
  handshake: "its certificate did not pass",
  open_connection: "an open connection, judged again",
  renewal: "a renewal of an open connection",
};

export function title(decision) {
  const who = decision.peer_id ? identity(decision.peer_id).name : decision.source ?? decision.peer_addr ?? "somebody";
  const said = decision.verdict !== "deny" ? "✓ Allowed" : decision.enforced ? "✕ Denied" : "○ Reported";
  return `${said}: ${who} ${decision.direction === "inbound" ? "→" : "at"} ${decision.listener}`;
}

const ruleOf = (policy, name) => policy?.rules.find((rule) => rule.name === name) ?? null;

function generationNote(decision, policy) {
  if (!policy || decision.policy_generation === 0 || decision.policy_generation === policy.generation) return null;
  return el("p", { class: "muted note" }, `Decided by policy generation ${decision.policy_generation}; in force and shown here is generation ${policy.generation}.`);
}

function nearest(decision, policy) {
  const { rule: name, unmet } = decision.nearest;
  const rule = ruleOf(policy, name);
  return el("section", { class: "part", id: "decision-nearest" },
    el("h3", {}, "The nearest miss: ", el("code", {}, name)),
    el("p", {}, `No rule allowed it. This one came nearest; it would have, but for ${unmet.length === 1 ? "one condition" : `${unmet.length} conditions`}:`),
    unmetList(unmet),
    rule ? ruleText(rule, unmet) : el("p", { class: "muted note" }, policy ? "The policy in force has no such rule any more." : "…"));
}

function deciding(decision, policy) {
  const rule = ruleOf(policy, decision.rule);
  const heading = decision.verdict === "deny" ? "What denied it: " : "What let it in: ";
  const entry = decision.reason?.startsWith("deny_list") ? policy?.deny_list?.entries.find((e) => e.name === decision.rule) : null;
  return el("section", { class: "part" },
    el("h3", {}, heading, el("code", {}, decision.rule)),
    decision.description ? el("p", {}, decision.description) : null,
    rule ? ruleText(rule) : null,
    entry ? el("p", { class: "muted mono note" }, `${entry.file}:${entry.line}`) : null);
}

function check({ certificate, standard, rule }) {
  return el("section", { class: "part", id: "decision-check" },
    el("h3", {}, "The check that failed"),
    el("dl", { class: "facts" },
      el("div", {}, el("dt", {}, "Certificate"), el("dd", {}, certificate)),
      el("div", {}, el("dt", {}, "Standard"), el("dd", {}, standard)),
      el("div", {}, el("dt", {}, "It says"), el("dd", {}, el("q", {}, rule)))));
}

function candidate({ verdict, rule }) {
  return el("p", { class: "part warn-text" }, `The candidate policy would ${verdict === "allow" ? "allow" : "deny"} this`, ...(rule ? [" by ", el("code", {}, rule)] : []), ".");
}

/** Draws it. `ask` is called where somebody wants to ask the question again. */
export function render(decision, policy, now, ask) {
  text($("decision-title"), title(decision));
  $("decision-title").className = decision.verdict === "deny" && !decision.enforced ? "reported" : decision.verdict;
  const list = el("dl", { class: "facts" });
  facts(list, [
    ["Peer", decision.peer_id ? el("span", { class: "mono break" }, ...breakable(decision.peer_id)) : "proved no identity"],
    ["Reason", decision.reason && el("code", {}, decision.reason)],
    ["When", `${clock(decision.time, now)}`],
    ["What", KINDS[decision.kind] ?? decision.kind],
    ["From", decision.source && decision.peer_addr && decision.source !== decision.peer_addr.replace(/:\d+$/, "") ? `${decision.peer_addr} for ${decision.source}` : decision.peer_addr],
    ["We are", decision.own_id && el("span", { class: "mono break" }, ...breakable(decision.own_id))],
    ["Certificate", decision.serial && el("span", { class: "mono break" }, decision.serial)],
    ["Budget", decision.budget],
    ["Marked by", decision.audited.length ? decision.audited.join(", ") : null],
    ["Policy", decision.policy_generation ? `generation ${decision.policy_generation}, ${decision.policy_hash}` : null],
    ["Connection", decision.connection && el("a", { href: link("connections", `#${decision.connection}`) }, `#${decision.connection}`)],
    ["Verdict’s id", el("a", { href: link("decision", decision.id), class: "mono", title: "A permanent link to this verdict" }, decision.id)],
  ]);
  const inbound = decision.direction === "inbound" && decision.peer_id;
  const again = inbound ? el("button", { type: "button", id: "decision-ask" }, "What if? Ask again") : null;
  again?.addEventListener("click", () => ask(decision));
  const parts = [
    decision.enforced ? null : el("p", { class: "part warn-text" }, "Reported alone: it has no effect, as the settings say."),
    decision.detail && !decision.nearest ? el("p", { class: "part" }, ...prose(decision.detail)) : null,
    decision.nearest ? nearest(decision, policy) : null,
    decision.check ? check(decision.check) : null,
    decision.rule ? deciding(decision, policy) : null,
    decision.candidate ? candidate(decision.candidate) : null,
    generationNote(decision, policy),
    list,
    again ? el("p", { class: "buttons" }, again) : null,
  ];
  $("decision-body").replaceChildren(...parts.filter(Boolean));
  show($("decision"), true);
}

/** Says that there is no such verdict. */
export function missing(id, error) {
  text($("decision-title"), `Verdict ${id}`);
  $("decision-title").className = "";
  $("decision-body").replaceChildren(el("p", {}, ...prose(`${error.message}${error.hint ? `: ${error.hint}` : ""}`)));
  show($("decision"), true);
}
