// A rule as it stands in its file, with the lines that did not hold marked.

import { el, prose } from "./dom.js";
import { counted } from "./format.js";

/** The fields in the order of the documentation. */
const FIELDS = ["description", "action", "to", "ports", "from", "not_from", "source", "not_source", "not_before", "expires"];
/** Values of a list that are shown; a rule may have thousands. */
const MOST = 12;

// What YAML would read otherwise, as a string.
const plain = (value) => (typeof value === "string" && (/^[\s\-?:,[\]{}#&*!|>'"%@`]|: | #|\s$|^$/.test(value) || /^(true|false|null|~|[\d.+-]+)$/i.test(value)) ? JSON.stringify(value) : String(value));

function lines(rule) {
  const out = [[null, `- name: ${plain(rule.name)}`]];
  for (const field of FIELDS) {
    const value = rule[field];
    if (value === null || value === undefined) continue;
    if (!Array.isArray(value)) out.push([field, `  ${field}: ${plain(value)}`]);
    else if (value.length <= 1) out.push([field, `  ${field}: [${value.map(plain).join(", ")}]`]);
    else {
      out.push([field, `  ${field}:`]);
      for (const one of value.slice(0, MOST)) out.push([field, `    - ${plain(one)}`]);
      if (value.length > MOST) out.push([field, `    # and ${counted(value.length - MOST, "further one")}`]);
    }
  }
  return out;
}

/** The rule's text. `unmet` are the conditions that did not hold, as a verdict names them. */
export function ruleText(rule, unmet = []) {
  const failed = new Set(unmet.map(({ condition }) => condition));
  const code = el("pre", { class: "rule", tabindex: "0", "aria-label": `Rule ${rule.name}` });
  for (const [field, words] of lines(rule)) {
    const bad = failed.has(field);
    code.append(el("span", { class: bad ? "line unmet" : "line" }, el("i", {}, bad ? "✕ " : "  "), words, "\n"));
  }
  // `from` left out has a meaning, too, and may be what did not hold.
  for (const { condition } of unmet) {
    if (rule[condition] === null) code.append(el("span", { class: "line unmet" }, el("i", {}, "✕ "), `  # ${condition} is left out\n`));
  }
  return el("figure", {}, el("figcaption", { class: "muted mono break" }, `${rule.file}:${rule.line}`), code);
}

/** Conditions that did not hold, in words. */
export const unmetList = (unmet) =>
  el("ul", { class: "unmet" }, ...unmet.map(({ condition, detail }) => el("li", {}, el("code", {}, condition), " ", ...prose(detail))));
