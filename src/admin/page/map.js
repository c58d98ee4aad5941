// The picture: who calls us on the left, whom we call on the right, we with our listeners between them. Every peer is a link
// to its connections, or to its denials where it has none.

import { only } from "./connections.js";
import { $, attr, svg, text } from "./dom.js";
import { count, counted, identity, rate } from "./format.js";
import { link } from "./route.js";
import { peerKey } from "./state.js";

/** Peers that are drawn on each side. */
const MOST = 9;
/** Of these, places for those who are only denied, as long as there are any. */
const DENIED_PLACES = 3;
const ROW = 46, BOX = 36, TOP = 8;
/** Below this width the two sides stand below one another. */
const WIDE = 640;
/** The width of a letter at the sizes of the style sheet: of the monospaced ones, and of the small ones on average. */
const LETTER = 7.3, SMALL = 6.2;
/** As far as peers stand apart where there are few. */
const FAR = 76;

let app = null;
let drawn = "";
let updates = [];

export function init(whole) {
  app = whole;
  new ResizeObserver(() => app.draw()).observe($("map"));
}

/** Whether a peer, or a node with the same counts, was let in nowhere. Who is only reported is let in. */
const isRefused = (it) => it.open === 0 && it.allowed === 0 && it.reported === 0;

const nodeKey = (peer) => peer.peer_id ?? `address ${peer.source ?? "unix"}`;

/** The peers of one side, each with its edges to listeners, and how many are left out. */
function side(direction, status) {
  const nodes = new Map();
  for (const peer of status.peers) {
    if (peer.direction !== direction) continue;
    const key = nodeKey(peer);
    const node = nodes.get(key) ?? { key, peer, edges: [], open: 0, allowed: 0, denied: 0, reported: 0, moved: 0, last: "" };
    const { up, down } = app.state.peers.of(peerKey(peer));
    node.edges.push({ listener: peer.listener, peer });
    node.open += peer.open;
    node.allowed += peer.allowed;
    node.denied += peer.denied;
    node.reported += peer.reported;
    node.moved += up + down;
    if (peer.last && peer.last.time > node.last) node.last = peer.last.time;
    nodes.set(key, node);
  }
  const all = [...nodes.values()];
  const recent = (a, b) => (a.last < b.last ? 1 : -1);
  const busy = (a, b) => (b.open > 0) - (a.open > 0) || recent(a, b);
  const denied = all.filter(isRefused).sort(recent);
  const welcome = all.filter((node) => !isRefused(node)).sort(busy);
  const kept = welcome.slice(0, MOST - Math.min(DENIED_PLACES, denied.length));
  const chosen = [...kept, ...denied.slice(0, MOST - kept.length)];
  // An order that does not depend on what moves, so that nobody changes places.
  const listeners = status.listeners.map((l) => l.name);
  const place = (node) => listeners.indexOf(node.edges[0].listener);
  chosen.sort((a, b) => place(a) - place(b) || isRefused(a) - isRefused(b) || (a.key < b.key ? -1 : 1));
  return { nodes: chosen, left: all.length - chosen.length };
}

const cut = (words, width, letter = LETTER) => {
  const letters = Math.floor(width / letter);
  return words.length > letters ? `${words.slice(0, Math.max(1, letters - 1))}…` : words;
};

/** How thick: by the digits of the rate. */
const thick = (moved) => (moved < 1 ? 1.5 : Math.min(8, 1.5 + Math.log10(1 + moved / 100) * 1.4));

export function render({ state }) {
  const { status } = state;
  const width = Math.floor($("map").clientWidth);
  if (width === 0) return;
  const inbound = side("inbound", status), outbound = side("outbound", status);
  const names = status.listeners.map((l) => [l.name, l.direction]);
  const shape = (part) => part.nodes.map((n) => [n.key, isRefused(n), n.edges.map((e) => e.listener)]);
  const key = JSON.stringify([width, names, shape(inbound), shape(outbound), status.identity.svid?.id]);
  if (key !== drawn) {
    drawn = key;
    draw(width, status, inbound, outbound);
  }
  const fresh = new Map([...inbound.nodes, ...outbound.nodes].map((node) => [node.edges[0].peer.direction + node.key, node]));
  for (const update of updates) update(fresh, status);
  const left = inbound.left + outbound.left;
  const unseen = Math.max(0, status.peers_total - status.peers.length);
  text($("map-note"), left + unseen > 0 ? `and ${counted(left + unseen, "further peer")}: the ones that moved last are drawn` : "");
}

function draw(width, status, inbound, outbound) {
  updates = [];
  const focused = document.activeElement?.closest?.("#map a")?.getAttribute("data-key");
  const listeners = (direction) => status.listeners.filter((l) => l.direction === direction);
  const into = listeners("inbound"), out = listeners("outbound");
  const drawing = svg("svg", { width, class: "map", role: "group", "aria-label": "Peers and listeners" });
  const rows = (part, own) => Math.max(part.nodes.length, own.length, 1) * ROW;
  let height;
  if (width >= WIDE) {
    const centre = Math.min(420, Math.max(250, width * 0.36));
    // In the middle, or at the side where nobody is.
    const x = out.length === 0 ? width - centre : into.length === 0 ? 0 : (width - centre) / 2;
    const peerWidth = Math.floor(Math.min(into.length && out.length ? 230 : 320, (into.length && out.length ? x : width - centre) - 64));
    const inner = Math.max(rows(inbound, into), rows(outbound, out));
    height = inner + 2 * TOP + 34;
    drawing.append(self(x, TOP, centre, height - 2 * TOP, status));
    const half = into.length && out.length ? centre / 2 - 14 : centre - 40;
    const start = TOP + 34;
    if (into.length) band(drawing, inbound, into, { peers: 0, peerWidth, own: x + 10, ownWidth: half, y: start, height: inner, turned: false });
    if (out.length) band(drawing, outbound, out, { peers: width - peerWidth - 1, peerWidth, own: x + centre - half - 10, ownWidth: half, y: start, height: inner, turned: true });
  } else {
    const peerWidth = Math.floor(width * 0.5), ownWidth = Math.floor(width * 0.32);
    let y = TOP;
    for (const [part, own, words] of [[inbound, into, "Who calls me"], [outbound, out, "Whom I call"]]) {
      if (own.length === 0) continue;
      drawing.append(svg("text", { x: 0, y: y + 14, class: "sub" }, words));
      const high = rows(part, own);
      band(drawing, part, own, { peers: 0, peerWidth, own: width - ownWidth - 1, ownWidth, y: y + 24, height: high, turned: false, backwards: part === outbound });
      y += high + 40;
    }
    height = y;
  }
  attr(drawing, "height", height);
  attr(drawing, "viewBox", `0 0 ${width} ${height}`);
  $("map").replaceChildren(drawing);
  if (focused) [...drawing.querySelectorAll("a")].find((a) => a.getAttribute("data-key") === focused)?.focus();
}

function self(x, y, width, height, status) {
  const id = identity(status.identity.svid?.id);
  return svg("g", {},
    svg("rect", { x, y, width, height, rx: 12, class: "self" }),
    svg("text", { x: x + width / 2, y: y + 22, class: "self-name", "text-anchor": "middle" }, cut(id.name || "no identity", width - 24)));
}

const spread = (number, at, { y, height }) => {
  const apart = Math.min(FAR, height / number);
  return y + height / 2 + apart * (at + 0.5 - number / 2);
};

function band(drawing, part, own, box) {
  const edges = svg("g", {}), nodes = svg("g", {});
  const doors = new Map();
  own.forEach((listener, at) => {
    const y = spread(own.length, at, box);
    doors.set(listener.name, { x: box.turned ? box.own + box.ownWidth : box.own, y });
    nodes.append(door(listener, y, box));
  });
  part.nodes.forEach((node, at) => {
    const y = spread(part.nodes.length, at, box);
    const from = { x: box.turned ? box.peers : box.peers + box.peerWidth, y };
    for (const edge of node.edges) {
      const to = doors.get(edge.listener);
      if (to) edges.append(line(node, edge, from, to, box.turned || box.backwards));
    }
    nodes.append(peer(node, y, box));
  });
  if (own.length > 0 && part.nodes.length === 0) {
    const words = own[0].direction === "inbound" ? "nobody called yet" : "nothing was called yet";
    nodes.append(svg("text", { x: box.peers + 4, y: spread(1, 0, box) + 4, class: "sub" }, words));
  }
  drawing.append(edges, nodes);
}

function door(listener, y, box) {
  const sub = svg("text", { x: box.own + 10, y: y + 13, class: "sub" });
  updates.push((_, status) => {
    const now = status.listeners.find((l) => l.name === listener.name);
    if (!now) return;
    const { up, down } = app.state.listeners.of(listener.name);
    const moved = rate(up + down);
    text(sub, box.ownWidth < 120 ? moved : cut(`${count(now.open)} open · ${moved}`, box.ownWidth - 14, SMALL));
  });
  const where = `${listener.direction} listener ${listener.name}: ${listener.listen} to ${listener.upstream}`;
  return svg("a", { href: link("connections", only("listener", listener.name)), "data-key": `listener ${listener.name}`, class: "node door", "aria-label": `${where}. Its connections` },
    svg("title", {}, where),
    svg("rect", { x: box.own, y: y - BOX / 2, width: box.ownWidth, height: BOX, rx: 7 }),
    svg("text", { x: box.own + 10, y: y - 2, class: "name" }, cut(listener.name, box.ownWidth - 20)),
    sub);
}

function line(node, edge, from, to, backwards) {
  const refused = isRefused(edge.peer);
  const middle = (from.x + to.x) / 2;
  // Drawn from who calls to who is called, so that what flows along it runs that way.
  const [a, b] = backwards ? [to, from] : [from, to];
  const path = `M${a.x},${a.y} C${middle},${a.y} ${middle},${b.y} ${b.x},${b.y}`;
  const base = svg("path", { d: path, class: "edge" });
  const flow = svg("path", { d: path, class: "flow" });
  const cross = svg("text", { x: middle, y: (from.y + to.y) / 2 + 5, class: "cross", "text-anchor": "middle" }, refused ? "✕" : "");
  const key = edge.peer.direction + node.key;
  updates.push((fresh, status) => {
    const peer = fresh.get(key)?.edges.find((e) => e.listener === edge.listener)?.peer;
    if (!peer) return;
    const { up, down } = app.state.peers.of(peerKey(peer));
    const moving = up + down >= 1;
    attr(base, "class", `edge ${refused ? "deny" : "allow"}${peer.open > 0 ? " open" : ""}`);
    attr(base, "stroke-width", refused ? 1.5 : thick(up + down).toFixed(1));
    attr(flow, "class", moving && !refused ? "flow moving" : "flow");
  });
  return svg("g", {}, base, flow, cross);
}

function peer(node, y, box) {
  const { peer: first, key } = node;
  const id = identity(first.peer_id);
  const who = first.peer_id ? id.name : `${first.source ?? "unix socket"}`;
  const own = identity(app.state.status.identity.svid?.id).domain;
  const foreign = id.domain && id.domain !== own ? ` @${id.domain}` : "";
  const refused = isRefused(node);
  const sub = svg("text", { x: box.peers + 10, y: y + 13, class: "sub" });
  const flag = svg("tspan", { class: "deny" });
  const rest = svg("tspan", {});
  sub.append(flag, rest);
  const anchor = svg("a", { "data-key": `${first.direction} ${key}`, class: `node peer${refused ? " refused" : ""}` },
    svg("title", {}, first.peer_id ?? `${who}: proved no identity`),
    svg("rect", { x: box.peers + 0.75, y: y - BOX / 2, width: box.peerWidth - 1.5, height: BOX, rx: 7 }),
    svg("text", { x: box.peers + 10, y: y - 2, class: "name" }, cut(who + foreign, box.peerWidth - 18)),
    sub);
  updates.push((fresh) => {
    const now = fresh.get(first.direction + key);
    if (!now) return;
    const denied = now.denied > 0 ? `✕ ${count(now.denied)} denied` : "";
    const reported = now.reported > 0 ? `, ${count(now.reported)} reported` : "";
    const welcome = (now.open > 0 ? `${count(now.open)} open · ${rate(now.moved)}` : now.allowed > 0 ? `idle, ${count(now.allowed)} allowed` : "idle") + reported;
    text(flag, denied);
    const unknown = first.peer_id ? "" : " · no identity";
    text(rest, cut(refused ? unknown : denied ? ` · ${welcome}` : welcome, box.peerWidth - 14 - denied.length * 7, SMALL));
    const those = first.peer_id ? only("peer", first.peer_id) : first.source ? only("source", first.source) : "";
    attr(anchor, "href", link(now.open > 0 ? "connections" : "decisions", those));
    const what = now.open > 0 ? "Its connections" : "Its decisions";
    attr(anchor, "aria-label", `${first.peer_id ?? who}: ${welcome}, ${count(now.allowed)} allowed, ${count(now.denied)} denied. ${what}`);
  });
  return anchor;
}
