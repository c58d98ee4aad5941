// "What if": the evaluator's answer to a question that nobody asked yet.

import { ask } from "./actions.js";
import { $, attr, el, keyed, prose } from "./dom.js";
import { ruleText, unmetList } from "./ruletext.js";

/** Peers that are offered for completion. */
const OFFERED = 50;

let app = null;

export function init(whole) {
  app = whole;
  $("whatif-form").addEventListener("submit", (event) => {
    event.preventDefault();
    answer();
  });
}

/** Fills the form from a verdict. */
export function prefill(decision) {
  $("whatif-from").value = decision.peer_id ?? "";
  $("whatif-to").value = decision.listener;
  $("whatif-source").value = decision.source ?? "";
  $("whatif-from").focus();
  answer();
}

async function answer() {
  const query = new URLSearchParams({ to: $("whatif-to").value, from: $("whatif-from").value.trim() });
  const source = $("whatif-source").value.trim();
  if (source) query.set("source", source);
  const box = $("whatif-answer");
  attr(box, "aria-busy", "true");
  try {
    // A plus is no blank to the endpoint.
    box.replaceChildren(...explained(await ask(`/api/v1/explain?${query.toString().replaceAll("+", "%20")}`)));
  } catch (error) {
    box.replaceChildren(el("p", { class: "problem" }, ...prose(`${error.message}${error.hint ? `: ${error.hint}` : ""}`)));
  }
  attr(box, "aria-busy", null);
}

function explained(answer) {
  const allowed = answer.verdict === "allow";
  const full = (name) => app.state.policy?.rules.find((rule) => rule.name === name) ?? null;
  const parts = [el("p", { class: `verdict-line ${answer.verdict}` },
    allowed ? "✓ It would be let in" : "✕ It would be denied",
    ...(answer.rule ? [" by ", el("code", {}, answer.rule)] : []),
    ...(answer.reason ? [" ", el("code", {}, answer.reason)] : []))];
  if (answer.detail) parts.push(el("p", {}, ...prose(answer.detail), "."));
  if (answer.nearest) {
    const rule = full(answer.nearest.rule);
    parts.push(el("h3", {}, "The nearest miss: ", el("code", {}, answer.nearest.rule)), unmetList(answer.nearest.unmet));
    if (rule) parts.push(ruleText(rule, answer.nearest.unmet));
  } else if (answer.rule && full(answer.rule)) parts.push(ruleText(full(answer.rule)));
  if (answer.audited.length) parts.push(el("p", { class: "muted" }, `Marked by ${answer.audited.join(", ")}.`));
  parts.push(el("details", {}, el("summary", {}, `What every rule says (${answer.rules.length})`),
    el("ul", { class: "said" }, ...answer.rules.slice(0, 200).map((rule) =>
      el("li", {}, el("code", {}, rule.name), " ",
        el("span", { class: "muted" }, rule.decided ? `${rule.action}: decided` : rule.matches ? `${rule.action}: matches` : `${rule.action}: does not match`),
        rule.unmet.length ? unmetList(rule.unmet) : null)))));
  return parts;
}

export function render({ state }) {
  const inbound = state.status.listeners.filter((listener) => listener.direction === "inbound");
  const option = (name) => el("option", { value: name }, name);
  keyed($("whatif-to"), inbound, (listener) => listener.name, (listener) => option(listener.name), () => {});
  const known = [...new Set(state.status.peers.filter((peer) => peer.direction === "inbound" && peer.peer_id).map((peer) => peer.peer_id))];
  keyed($("whatif-peers"), known.slice(0, OFFERED), (id) => id, (id) => el("option", { value: id }), () => {});
}
