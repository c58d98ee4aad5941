// The open connections: sorted, filtered, and closed where somebody may.

import * as actions from "./actions.js";
import { $, attr, breakable, el, show, text } from "./dom.js";
import { bytes, clock, count, counted, duration, identity, millis, rate } from "./format.js";
import { link, note } from "./route.js";
import { Table } from "./table.js";

/** Rows that are drawn at once, and with each further step. */
const STEP = 100;
/** Connections that the stream carries at most. */
const MANY = 1000;

let table = null;
let app = null;
let limit = STEP;

/** What a term of a filter, such as `peer=`, is about: the one field, and all of it. */
const EXACT = {
  peer: (it) => it.peer_id,
  source: (it) => it.source,
  listener: (it) => it.listener,
  rule: (it) => it.rule,
  reason: (it) => it.reason,
};

/** A word that asks for a field as a whole, or `null`. */
function exact(word) {
  const at = word.indexOf("=");
  return at > 0 && Object.hasOwn(EXACT, word.slice(0, at)) ? [EXACT[word.slice(0, at)], word.slice(at + 1)] : null;
}

/** A filter that finds exactly those whose field is this, for links. */
export const only = (field, value) => `${field}=${value}`;

/**
 * Whether all words of a filter fit: in any of the texts, whatever their case; `peer=…`, `source=…`, `listener=…`, `rule=…` and
 * `reason=…` are that field as a whole; `#17` is the connection of that number.
 */
export function matches(words, it, texts, number) {
  const lower = (one) => String(one ?? "").toLowerCase();
  return words.every((word) => {
    const term = exact(word);
    if (term) return lower(term[0](it)) === term[1];
    return word === `#${number}` || texts.some((one) => one !== null && one !== undefined && lower(one).includes(word));
  });
}

/** A filter's words. */
export const words = (value) => value.toLowerCase().split(/\s+/).filter(Boolean);

/** A peer's cell: the name, and the rest of it small; a trust domain that is not ours, too. */
export function fillPeer(cell, id, address) {
  const own = identity(app.state.status.identity.svid?.id).domain;
  const key = `${id} ${address} ${own}`;
  if (cell.dataset.peer === key) return;
  cell.dataset.peer = key;
  const known = identity(id);
  const title = id ? el("span", { class: "mono strong break", title: id }, ...breakable(known.domain ? known.path : id)) : el("span", { class: "muted" }, "no identity");
  const under = [known.domain === own ? null : known.domain, address].filter(Boolean).join(" · ");
  cell.replaceChildren(title, el("small", { class: "muted mono break" }, under));
}

const arrow = (direction) => (direction === "inbound" ? "→" : "↗");

export function init(whole) {
  app = whole;
  const now = () => app.state.now();
  const of = (c) => app.state.connections.of(c.id);
  table = new Table($("connections-table"), [
    { name: "peer", title: "Peer", kind: "peer", value: (c) => c.peer_id, fill: (cell, c) => fillPeer(cell, c.peer_id, `#${c.id} · ${c.peer_addr}`) },
    { name: "listener", title: "Listener", value: (c) => c.listener, make: (cell, c) => attr(cell, "title", c.direction), text: (c) => `${arrow(c.direction)} ${c.listener}` },
    {
      name: "rule", title: "Let in by", kind: "mono break", value: (c) => c.rule,
      fill: (cell, c) => {
        if (cell.dataset.decision === (c.decision_id ?? "")) return;
        cell.dataset.decision = c.decision_id ?? "";
        cell.replaceChildren(c.decision_id ? el("a", { href: link("decision", c.decision_id) }, ...breakable(c.rule ?? c.verdict ?? "verdict")) : c.rule ?? "–");
      },
    },
    { name: "age", title: "Age", kind: "number", value: (c) => -millis(c.since), first: "descending", make: (cell, c) => attr(cell, "title", c.since), text: (c) => duration((now() - millis(c.since)) / 1000) },
    { name: "up", title: "Up", kind: "number", value: (c) => c.bytes_up, first: "descending", text: (c) => bytes(c.bytes_up) },
    { name: "down", title: "Down", kind: "number", value: (c) => c.bytes_down, first: "descending", text: (c) => bytes(c.bytes_down) },
    {
      name: "rate", title: "Now", kind: "number", value: (c) => of(c).up + of(c).down, first: "descending",
      fill: (cell, c) => {
        const { up, down } = of(c);
        text(cell, rate(up + down));
        attr(cell, "class", up + down < 0.5 ? "number muted" : "number");
      },
    },
    { name: "expires", title: "Ends", kind: "number", value: (c) => millis(c.expires), make: (cell, c) => attr(cell, "title", c.expires), text: (c) => clock(c.expires, now()) },
    {
      name: "close", title: "Close", hidden: true, kind: "button",
      make: (cell, c) => {
        const button = el("button", { type: "button", class: "quiet", "aria-label": `Close connection ${c.id}` }, "Close");
        button.addEventListener("click", () => close(c));
        cell.append(button);
      },
      fill: () => {},
    },
  ], { key: (c) => c.id, sort: { name: "age", order: "ascending" }, row: (node, c) => attr(node, "data-id", c.id), changed: () => app.draw() });
  $("connections-filter").addEventListener("input", () => {
    limit = STEP;
    note("connections", $("connections-filter").value);
    app.draw();
  });
  $("connections-more").addEventListener("click", () => {
    const { total, shown } = app.state.status.connections;
    if (limit < shown.length) limit += STEP;
    else if (total > shown.length) app.stream.wants(MANY);
    app.draw();
  });
}

export function open(_, where) {
  if ($("connections-filter").value !== where.value) $("connections-filter").value = where.value;
  limit = STEP;
}

/** Rows that nobody sees are let go: a thousand of them slow everything else down. */
export function leave() {
  table.update([]);
}

async function close(connection) {
  const who = connection.peer_id ?? connection.peer_addr;
  await actions.confirm({
    title: `Close connection ${connection.id}?`,
    explanation: `\`${who}\` at listener \`${connection.listener}\`, from \`${connection.peer_addr}\`. Both ends see it break off. It may come back at once: what keeps a peer out is policy or the deny list.`,
    yes: "Close it",
    method: "POST",
    path: `/api/v1/connections/${connection.id}/close`,
  }, app.changes);
}

export function render({ state, changes }) {
  const { total, shown, in_handshake_or_closing: between } = state.status.connections;
  const wanted = words($("connections-filter").value);
  const found = wanted.length ? shown.filter((c) => matches(wanted, c, [c.peer_id, c.peer_addr, c.source, c.listener, c.rule], c.id)) : shown;
  table.update(found, limit);
  attr($("connections-table"), "data-closing", changes !== "none");
  show($("connections-note"), changes === "none");
  text($("connections-note"), "Connections can't be closed from here: this endpoint takes no changes. Set admin.token_file, or use its unix socket.");
  const drawn = Math.min(found.length, limit);
  const parts = [wanted.length ? `${count(found.length)} of ${counted(total, "connection")}` : counted(total, "connection")];
  if (between > 0) parts.push(`${count(between)} in handshake or closing`);
  if (total > shown.length) parts.push(`the newest ${count(shown.length)} are looked at`);
  text($("connections-count"), parts.join(" · "));
  const more = found.length > drawn;
  const further = total > shown.length && app.stream.connections < MANY;
  show($("connections-more"), more || further);
  text($("connections-more"), more ? `Show ${Math.min(STEP, found.length - drawn)} more` : `Look at up to ${MANY}`);
}
