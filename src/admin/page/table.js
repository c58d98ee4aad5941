// Tables with headers that sort. Rows are kept and changed in place, and no more of them are drawn than asked for.

import { attr, el, keyed, text } from "./dom.js";

const collator = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  if (a === b) return 0;
  // What is not known stands last, in either order.
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return typeof a === "string" && typeof b === "string" ? collator.compare(a, b) : a < b ? -1 : 1;
}

export class Table {
  #sort;
  #head = new Map();

  /**
   * Columns have a `name`, a `title`, and either `text(item)` or `make(cell)` and `fill(cell, item)`; with `value(item)` they
   * can be sorted by; `first: "descending"` says how at first; `kind` is a class of its cells. `changed` is called when
   * the order is.
   */
  constructor(table, columns, { key, sort = null, row = null, changed = () => {} }) {
    Object.assign(this, { table, columns, key, row, changed });
    this.#sort = sort;
    // The narrow form takes the table's layout away, and with it what browsers take for its meaning: said in full.
    attr(table, "role", "table");
    const cells = columns.map((column) => this.#header(column));
    this.body = el("tbody", { role: "rowgroup" });
    table.append(el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...cells)), this.body);
    this.#showSort();
  }

  #header(column) {
    const cell = el("th", { scope: "col", role: "columnheader", class: column.kind });
    if (!column.value) {
      cell.append(el("span", { class: column.hidden ? "hidden" : null }, column.title));
      return cell;
    }
    const button = el("button", { type: "button", class: "sort", "data-column": column.name }, column.title);
    button.addEventListener("click", () => {
      const first = column.first ?? "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const same = this.#sort?.name === column.name;
      this.#sort = { name: column.name, order: same && this.#sort.order === first ? other : first };
      this.#showSort();
      this.changed();
    });
    this.#head.set(column.name, cell);
    cell.append(button);
    return cell;
  }

  #showSort() {
    for (const [name, cell] of this.#head) {
      attr(cell, "aria-sort", this.#sort?.name === name ? this.#sort.order : "none");
    }
  }

  /** Draws the first `limit` of the items in the order that was chosen. */
  update(items, limit = Infinity) {
    const column = this.columns.find(({ name }) => name === this.#sort?.name);
    let sorted = items;
    if (column) {
      const turn = this.#sort.order === "descending" ? -1 : 1;
      const known = (value) => value !== null && value !== undefined;
      sorted = items.map((item) => ({ item, value: column.value(item) }));
      sorted.sort((a, b) => (known(a.value) && known(b.value) ? turn : 1) * compare(a.value, b.value));
      sorted = sorted.map(({ item }) => item);
    }
    if (sorted.length > limit) sorted = sorted.slice(0, limit);
    keyed(this.body, sorted, this.key, (item) => this.#make(item), (node, item) => this.#fill(node, item));
    // A table without rows is a heading without a text.
    attr(this.table, "data-empty", sorted.length === 0);
  }

  #make(item) {
    const node = el("tr", { role: "row" });
    this.columns.forEach((column, place) => {
      const header = place === 0;
      const cell = el(header ? "th" : "td", {
        scope: header ? "row" : null,
        role: header ? "rowheader" : "cell",
        class: column.kind,
        "data-label": column.title,
      });
      column.make?.(cell, item);
      node.append(cell);
    });
    return node;
  }

  #fill(node, item) {
    this.row?.(node, item);
    this.columns.forEach((column, place) => {
      const cell = node.children[place];
      if (column.fill) column.fill(cell, item);
      else text(cell, column.text(item));
    });
  }
}
