// Making and changing elements. Text from outside goes through `textContent` alone, and nothing is touched that has not changed.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) attr(node, name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An element with attributes and children (elements or text). */
export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** As `el`, for SVG. */
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Sets an attribute where it differs; `null`, `undefined` and `false` remove it. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Sets the text where it differs. */
export function text(node, value) {
  const wanted = value === null || value === undefined ? "" : String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Shows or hides. */
export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/** A number for the style sheet: what `style=` would do, which the content security policy forbids. */
export function cssVar(node, name, value) {
  const wanted = String(value);
  if (node.style.getPropertyValue(name) !== wanted) node.style.setProperty(name, wanted);
}

/** A path or an ID that may go to the next line where a part of it ends. */
export const breakable = (value) => String(value ?? "").split(/(?<=[/.:@])(?=[^/])/).flatMap((part, place) => (place ? [el("wbr"), part] : [part]));

/** Words in which `backticks` mark code. */
export function prose(value) {
  return String(value ?? "").split("`").map((part, place) => (place % 2 ? el("code", {}, ...breakable(part)) : part));
}

const KEPT = new WeakMap();

/**
 * Brings a parent's children into line with the items: each is made once, updated after, and moved only where the order
 * changed.
 */
export function keyed(parent, items, keyOf, make, update) {
  let kept = KEPT.get(parent);
  if (!kept) KEPT.set(parent, (kept = new Map()));
  const gone = new Set(kept.keys());
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    let node = kept.get(key);
    if (!node) kept.set(key, (node = make(item)));
    else if (!gone.has(key)) continue; // Twice the same key: the first counts.
    gone.delete(key);
    update(node, item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  for (const key of gone) {
    kept.get(key).remove();
    kept.delete(key);
  }
}

/** Sets words in which `backticks` mark code, where they differ, and hides the element where there are none. */
export function say(node, words) {
  const wanted = words ?? "";
  show(node, wanted !== "");
  if (node.dataset.words === wanted) return;
  node.dataset.words = wanted;
  node.replaceChildren(...prose(wanted));
}

/** Pairs of a term and its description. A description is text or nodes; `null` leaves the pair out. */
export function facts(list, pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  keyed(list, shown, ([term]) => term, ([term]) => el("div", {}, el("dt", {}, term), el("dd")), (node, [, value]) => {
    const dd = node.lastChild;
    const parts = [value].flat().map((part) => (part instanceof Node ? part : document.createTextNode(part)));
    // What has not changed stays as it is: somebody may be selecting it.
    const same = parts.length === dd.childNodes.length && parts.every((part, place) => part.isEqualNode(dd.childNodes[place]));
    if (!same) dd.replaceChildren(...parts);
  });
}

/** Tells people who do not see the page. */
export function announce(words) {
  text($("announce"), words);
}
