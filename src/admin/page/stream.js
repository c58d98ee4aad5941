// The live stream. Comes back by itself, ever more slowly, and says what it is doing.

const FIRST_PAUSE = 500;
const LAST_PAUSE = 10_000;
/** A status comes each second. One that is silent for this long is given up. */
const SILENT_SECONDS = 15;

export class Stream {
  #source = null;
  #pause = FIRST_PAUSE;
  #timer = 0;
  #heard = 0;
  #connections = 200;

  /** `on`: `status`, `decision` and `lost` with their data, `state` with `live`, or with `lost` and why, where that is known. */
  constructor(on) {
    this.on = on;
    setInterval(() => {
      if (this.#source && performance.now() - this.#heard > SILENT_SECONDS * 1000) this.#again();
    }, 1000);
    window.addEventListener("online", () => this.open());
  }

  /** Asks for this many connections from now on. */
  wants(connections) {
    if (connections === this.#connections) return;
    this.#connections = connections;
    this.open();
  }

  get connections() {
    return this.#connections;
  }

  open() {
    clearTimeout(this.#timer);
    this.#source?.close();
    const address = `/api/v1/status?connections=${this.#connections}`;
    const source = new EventSource(address);
    this.#source = source;
    let opened = false;
    source.addEventListener("open", () => {
      opened = true;
    });
    this.#heard = performance.now();
    const listen = (name, take) =>
      source.addEventListener(name, (event) => {
        this.#heard = performance.now();
        take(JSON.parse(event.data));
      });
    listen("status", (data) => {
      this.#pause = FIRST_PAUSE;
      this.on.state("live");
      this.on.status(data);
    });
    listen("decision", this.on.decision);
    listen("lost", (data) => this.on.lost(data.lost));
    // The browser's own way to reconnect gives up for good on an answer such as 503.
    source.addEventListener("error", () => {
      this.#again();
      if (!opened) this.#why(address);
    });
  }

  /** An `EventSource` keeps to itself what it was answered. */
  async #why(address) {
    const asked = new AbortController();
    try {
      const response = await fetch(address, { headers: { Accept: "text/event-stream" }, cache: "no-store", signal: asked.signal });
      if (!response.ok) {
        const { error, hint } = await response.json();
        this.on.state("lost", `${error}: ${hint}`);
      }
    } catch { /* It does not answer, which is said already. */ }
    asked.abort();
  }

  #again() {
    this.#source?.close();
    this.#source = null;
    this.on.state("lost");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.open(), this.#pause);
    this.#pause = Math.min(this.#pause * 2, LAST_PAUSE);
  }
}
