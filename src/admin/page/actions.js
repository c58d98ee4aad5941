// What changes something: asked twice, and with a token where the endpoint wants one. The token lives in this variable alone.

import { $, announce, say, show, text } from "./dom.js";

let token = null;

const dialog = () => $("ask");

/** Asks the endpoint for JSON; throws an error with what is wrong and what to do. */
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw Object.assign(new Error("the endpoint does not answer"), { hint: "", status: 0 });
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const why = body.error ?? `the endpoint answered ${response.status}`;
  throw Object.assign(new Error(why), { hint: body.hint ?? "", status: response.status });
}

let pending = null;

/**
 * Has a change confirmed and made. `change`: `title`, `explanation`, `yes` (the button), `method`, `path`, and for a value
 * that is sent as body `value` with its `label`. `changes` is the status' word for how they are let in. Gives the answer; `null` when
 * it was not made.
 */
export function confirm(change, changes) {
  const wantsToken = changes === "token";
  text($("ask-title"), change.title);
  say($("ask-text"), change.explanation);
  text($("ask-yes"), change.yes);
  show($("ask-value-row"), change.label !== undefined);
  text($("ask-value-label"), change.label ?? "");
  $("ask-value").value = change.value ?? "";
  show($("ask-token-row"), wantsToken && token === null);
  $("ask-token").value = "";
  say($("ask-problem"), "");
  $("ask-yes").disabled = false;
  dialog().showModal();
  const first = change.label ? $("ask-value") : wantsToken && token === null ? $("ask-token") : $("ask-no");
  first.focus();
  return new Promise((resolve) => {
    pending = { change, wantsToken, resolve };
  });
}

function finish(answer) {
  const done = pending;
  pending = null;
  $("ask-token").value = "";
  done?.resolve(answer);
}

async function submit(event) {
  event.preventDefault();
  if (!pending || $("ask-yes").disabled) return;
  const { change, wantsToken } = pending;
  if (wantsToken && token === null) {
    const typed = $("ask-token").value.trim();
    // What a header cannot hold is no token of ours.
    if (!/^[!-~]*$/.test(typed)) {
      say($("ask-problem"), "A token has visible ASCII characters alone.");
      $("ask-token").focus();
      return;
    }
    token = typed || null;
  }
  const headers = wantsToken && token !== null ? { Authorization: `Bearer ${token}` } : {};
  const body = change.label ? $("ask-value").value : undefined;
  // Somebody may have given up meanwhile, and asked for something else.
  const current = () => pending?.change === change;
  $("ask-yes").disabled = true;
  try {
    const answer = await ask(change.path, { method: change.method, headers, body });
    announce(`Done: ${change.title}`);
    if (current()) {
      finish(answer);
      dialog().close();
    }
  } catch (error) {
    if (error.status === 401 || error.status === 403) token = null;
    if (current()) {
      if (token === null) {
        show($("ask-token-row"), wantsToken);
        $("ask-token").value = "";
      }
      say($("ask-problem"), `${error.message}${error.hint ? `: ${error.hint}` : ""}`);
      if (error.status === 401) $("ask-token").focus();
    }
  } finally {
    if (current() || pending === null) $("ask-yes").disabled = false;
    show($("forget-token"), token !== null);
  }
}

export function init() {
  $("ask-form").addEventListener("submit", submit);
  $("ask-no").addEventListener("click", () => dialog().close());
  dialog().addEventListener("close", () => finish(null));
  $("forget-token").addEventListener("click", () => {
    token = null;
    show($("forget-token"), false);
    announce("Token forgotten");
    document.querySelector('[role="tab"][aria-selected="true"]').focus();
  });
}
