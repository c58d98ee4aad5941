// What is known: the last status, rates and their recent past, the verdicts. All of it is bounded, whatever is streamed.

import { millis } from "./format.js";

/** Seconds of throughput that the overview draws. */
const RATE_SECONDS = 90;
/** Seconds in which denials count as recent. */
export const DENIED_SECONDS = 300;
/** Verdicts that are kept; some more until the older ones are cut off. */
const MAX_DECISIONS = 2000;
const SLACK = 500;

/** Rates of things that are counted, by key: from one status to the next. */
class Rates {
  #last = new Map();

  /** Takes the counts of now; `seconds` have passed. */
  take(items, keyOf, seconds) {
    const next = new Map();
    for (const item of items) {
      const { bytes_up, bytes_down } = item;
      const before = this.#last.get(keyOf(item));
      const now = { bytes_up, bytes_down, up: 0, down: 0 };
      if (before && seconds > 0) {
        now.up = step(before.up, bytes_up - before.bytes_up, seconds);
        now.down = step(before.down, bytes_down - before.bytes_down, seconds);
      }
      next.set(keyOf(item), now);
    }
    this.#last = next;
  }

  of(key) {
    const known = this.#last.get(key);
    return known ? { up: known.up, down: known.down } : { up: 0, down: 0 };
  }
}

// A little smoothed, so that the digits can be read. A count that fell (of a peer, a connection of which ended) says nothing.
function step(before, grown, seconds) {
  if (grown < 0) return before;
  const now = grown / seconds;
  const mixed = before === 0 || now === 0 ? now : before * 0.4 + now * 0.6;
  return mixed;
}

/** Whether a verdict keeps somebody out. A denial without an effect (`policy.mode: audit`, `open_connections: log`) is reported alone. */
export const isDenied = (decision) => decision.verdict === "deny" && decision.enforced;

export const peerKey = (peer) => `${peer.listener} ${peer.peer_id ?? `address ${peer.source ?? "unix"}`}`;

export class State {
  status = null;
  /** The document of `/api/v1/policy`, as far as it was fetched. */
  policy = null;
  /** When the last status came, by the clock that cannot jump. */
  #cameAt = 0;
  connections = new Rates();
  listeners = new Rates();
  peers = new Rates();
  /** Bytes a second, the oldest first. */
  throughput = [];
  /** New connections a second. */
  accepted = 0;
  #window = [];

  /** The oldest first. */
  decisions = [];
  #byId = new Map();
  #denied = new Map();
  /** Verdicts that the stream left out because we were too slow. */
  lost = 0;

  takeStatus(status) {
    const before = this.status;
    const same = before && before.started === status.started;
    const seconds = same ? (millis(status.time) - millis(before.time)) / 1000 : 0;
    this.status = status;
    this.#cameAt = performance.now();
    // A status that comes at once after a reconnection is too near to the one before to say a rate.
    if (same && seconds < 0.2) return;
    this.connections.take(status.connections.shown, (c) => c.id, seconds);
    this.listeners.take(status.listeners, (l) => l.name, seconds);
    this.peers.take(status.peers, peerKey, seconds);
    let moved = 0, arrived = 0;
    for (const listener of status.listeners) {
      const { up, down } = this.listeners.of(listener.name);
      moved += up + down;
      arrived += listener.open + Object.values(listener.results).reduce((sum, n) => sum + n, 0);
    }
    this.throughput.push(moved);
    if (this.throughput.length > RATE_SECONDS) this.throughput.shift();
    // Over ten seconds, or a slow trickle would blink.
    if (!same) this.#window = [];
    this.#window.push({ at: millis(status.time), arrived });
    while (this.#window.length > 11) this.#window.shift();
    const first = this.#window[0];
    const span = (millis(status.time) - first.at) / 1000;
    this.accepted = span > 0 ? Math.max(0, arrived - first.arrived) / span : 0;
  }

  /** The process' time of now, in milliseconds. */
  now() {
    return this.status ? millis(this.status.time) + (performance.now() - this.#cameAt) : Date.now();
  }

  /** Seconds since the last status came. */
  age() {
    return this.status ? (performance.now() - this.#cameAt) / 1000 : Infinity;
  }

  /** Takes a verdict as it is given. Says whether it is new. */
  takeDecision(decision) {
    if (this.#byId.has(decision.id)) return false;
    this.#byId.set(decision.id, decision);
    this.decisions.push(decision);
    if (isDenied(decision)) this.#tally(decision);
    if (this.decisions.length > MAX_DECISIONS + SLACK) {
      for (const old of this.decisions.splice(0, this.decisions.length - MAX_DECISIONS)) this.#byId.delete(old.id);
    }
    return true;
  }

  /** Takes what was decided before we listened, the newest first. */
  takeEarlier(decisions) {
    let added = false;
    for (const decision of decisions.toReversed()) added = this.takeDecision(decision) || added;
    if (added) this.decisions.sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0));
  }

  /** Another process answers: nothing of what was known is about it. */
  restart() {
    this.decisions = [];
    this.#byId.clear();
    this.#denied.clear();
    this.throughput = [];
    this.policy = null;
  }

  decision(id) {
    return this.#byId.get(id) ?? null;
  }

  #tally(decision) {
    const second = Math.floor(millis(decision.time) / 1000);
    this.#denied.set(second, (this.#denied.get(second) ?? 0) + 1);
    if (this.#denied.size > 2 * DENIED_SECONDS) {
      const oldest = second - DENIED_SECONDS;
      for (const known of this.#denied.keys()) if (known < oldest) this.#denied.delete(known);
    }
  }

  /** Denials of the last minutes, in so many equal parts, the oldest first. */
  denied(parts) {
    const now = Math.floor(this.now() / 1000);
    const found = new Array(parts).fill(0);
    for (const [second, number] of this.#denied) {
      const age = now - second;
      if (age >= DENIED_SECONDS) continue;
      const part = parts - 1 - Math.floor((Math.max(0, age) * parts) / DENIED_SECONDS);
      found[part] += number;
    }
    return found;
  }
}
