// The page's middle: what comes in goes to the state, and what is shown is drawn from it, at most once a frame.

import * as actions from "./actions.js";
import { announce, $, attr, say, text } from "./dom.js";
import { duration } from "./format.js";
import * as route from "./route.js";
import { State } from "./state.js";
import { Stream } from "./stream.js";
import * as overview from "./overview.js";
import * as now from "./now.js";
import * as connections from "./connections.js";
import * as decisions from "./decisions.js";
import * as policy from "./policy.js";
import * as health from "./health.js";

const panels = { now, connections, decisions, policy, health };
const state = new State();
/** Without a status for longer than this, what is shown is old. */
const STALE_SECONDS = 3.5;
/** Verdicts can come by the thousand: what they change is drawn this often at most, in milliseconds. */
const VERDICT_PAUSE = 250;
/** Drawing takes this part of the time at most; where there is much to draw, it is drawn less often. */
const DRAWING_PART = 0.25;
/** Verdicts that were given before we came. */
const EARLIER = 500;

const app = {
  state,
  stream: null,
  /** Draws in the next frame. */
  draw,
  policyWanted: wantPolicy,
  get changes() {
    return state.status?.changes ?? "none";
  },
};

let current = null;
let live = "connecting";
/** Why there is no stream, where the sidecar says it. */
let why = null;
let frame = 0;
let notBefore = 0;
let drawTimer = 0;
let verdictTimer = 0;

/** Draws in the next frame, because somebody did something. */
function draw() {
  if (frame) return;
  clearTimeout(drawTimer);
  drawTimer = 0;
  frame = requestAnimationFrame(() => {
    const begun = performance.now();
    frame = 0;
    if (!state.status) return;
    overview.render(app);
    // A hidden panel costs nothing.
    if (current) panels[current].render(app);
    // With the layout that it causes, which the browser would do right after.
    document.body.offsetHeight;
    const ended = performance.now();
    notBefore = ended + (ended - begun) * (1 / DRAWING_PART - 1);
  });
}

/** Draws when there is time for it, because something came. */
function drawSoon() {
  if (frame || drawTimer) return;
  const wait = notBefore - performance.now();
  if (wait <= 0) draw();
  else drawTimer = setTimeout(draw, wait);
}

let policyFetched = null;

/** Fetches the rules' text where another policy, deny list or candidate came into force. */
async function wantPolicy() {
  const { generation, deny_list, candidate, content_hash } = state.status.policy;
  const which = [state.status.started, generation, content_hash, deny_list?.generation, candidate?.generation].join(" ");
  if (policyFetched === which) return;
  policyFetched = which;
  try {
    state.policy = await actions.ask("/api/v1/policy");
    draw();
  } catch {
    policyFetched = null; // With the next status again.
  }
}

async function fetchEarlier() {
  try {
    state.takeEarlier((await actions.ask(`/api/v1/decisions?limit=${EARLIER}`)).decisions);
    draw();
  } catch { /* The stream goes on without them. */ }
}

/** What somebody who does not look at the page should hear. */
function tellChanges(before, after) {
  if (!before) return;
  const { ready } = after.readiness;
  if (before.started !== after.started) return announce("The process was started anew");
  if (before.readiness.ready !== ready) announce(ready ? "Ready again" : "Not ready");
  else if (before.identity.svid?.serial !== after.identity.svid?.serial) announce("The SVID was rotated");
  else if (before.policy.generation !== after.policy.generation) announce(`Policy generation ${after.policy.generation} is in force`);
  else if (before.policy.last_reload?.at !== after.policy.last_reload?.at && after.policy.last_reload?.result === "failure")
    announce("The policy files could not be used");
}

function takeStatus(status) {
  const before = state.status;
  if (before && before.started !== status.started) {
    state.restart();
    fetchEarlier();
  }
  state.takeStatus(status);
  tellChanges(before, status);
  overview.title(app);
  wantPolicy();
  freshness();
  drawSoon();
}

function takeDecision(decision) {
  if (!state.takeDecision(decision) || verdictTimer) return;
  verdictTimer = setTimeout(() => {
    verdictTimer = 0;
    drawSoon();
  }, VERDICT_PAUSE);
}

function takeLive(word, reason = null) {
  if (reason !== null || word === "live") why = reason;
  if (word === live) {
    if (reason !== null) freshness();
    return;
  }
  const lost = live === "live" && word === "lost";
  const back = live === "lost" && word === "live";
  if (lost) announce("Connection to the sidecar lost; trying again");
  if (back) announce("Connected to the sidecar again");
  live = word;
  if (word === "live") fetchEarlier();
  freshness();
}

/** Says how old it is what one sees. */
function freshness() {
  const age = state.age();
  const word = live === "live" && age > STALE_SECONDS ? "stale" : live;
  attr(document.body, "data-live", word);
  const words = { live: "live", connecting: "connecting", lost: "reconnecting", stale: "stale" };
  text($("live-text"), word === "live" || !state.status ? words[word] : `${words[word]}, ${duration(age)} old`);
  if (word === "live" || word === "connecting") return say($("banner"), "");
  const seen = state.status ? `What you see is ${duration(age)} old.` : "Nothing was received yet.";
  say($("banner"), word === "lost"
    ? `${why ? `The sidecar refuses the stream (${why})` : "The sidecar does not answer"}; trying again. ${seen}`
    : `Nothing came for ${duration(age)}. ${seen}`);
}

actions.init();
for (const panel of Object.values(panels)) panel.init(app);
app.stream = new Stream({
  status: takeStatus,
  decision: takeDecision,
  lost: (number) => {
    state.lost += number;
    drawSoon();
  },
  state: takeLive,
});
route.init((where) => {
  const before = current;
  current = where.panel;
  if (before && before !== current) panels[before].leave?.();
  panels[current].open?.(app, where, before !== current);
  draw();
});
app.stream.open();
setInterval(freshness, 1000);
document.addEventListener("visibilitychange", draw);
