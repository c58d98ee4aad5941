// Which panel is shown, and with what filter: all of it in the address, so that it can be sent to somebody.
//
// `#connections`, `#connections=storefront` (filtered), `#decision=ID` (one verdict).

import { $, attr, show } from "./dom.js";

export const PANELS = ["now", "connections", "decisions", "policy", "health"];

/** The panel and what stands behind the equals sign; `null` for an address that is none of ours. */
function read() {
  const [name, ...rest] = location.hash.slice(1).split("=");
  let value = rest.join("=");
  try {
    value = decodeURIComponent(value);
  } catch { /* What is not encoded right is taken as it stands. */ }
  if (name === "") return { panel: "now", value: "" };
  if (name === "decision") return { panel: "decisions", value: "", decision: value };
  return PANELS.includes(name) ? { panel: name, value } : null;
}

export const link = (panel, value = "") => (value ? `#${panel}=${encodeURIComponent(value)}` : `#${panel}`);

/** Notes a filter in the address without another step in the history. */
export function note(panel, value) {
  history.replaceState(null, "", link(panel, value));
}

const tab = (panel) => $(`tab-${panel}`);

/** Shows the panel of the address, now and whenever it changes; `shown` is told. */
export function init(shown) {
  let current = null;
  const go = () => {
    const route = read();
    if (!route) return;
    for (const panel of PANELS) {
      const chosen = panel === route.panel;
      attr(tab(panel), "aria-selected", String(chosen));
      attr(tab(panel), "tabindex", chosen ? "0" : "-1");
      show($(`panel-${panel}`), chosen);
    }
    if (current !== null && current !== route.panel) scrollTo(0, 0);
    current = route.panel;
    shown(route);
  };
  for (const panel of PANELS) {
    tab(panel).addEventListener("click", () => {
      location.hash = link(panel);
    });
  }
  document.querySelector('[role="tablist"]').addEventListener("keydown", (event) => {
    const at = PANELS.findIndex((panel) => tab(panel) === document.activeElement);
    const last = PANELS.length - 1;
    const next = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    location.hash = link(PANELS[next]);
    tab(PANELS[next]).focus();
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("panels").focus();
  });
  window.addEventListener("hashchange", go);
  go();
}
