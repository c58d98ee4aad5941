// The colour scheme: the system's, or the one that was chosen here. Not a module, so that it holds before the first paint.
(() => {
  "use strict";
  const NAMES = ["system", "light", "dark"];
  const root = document.documentElement;
  const kept = () => {
    // Storage may be forbidden, which must not cost the page.
    try { return localStorage.getItem("svidecar-theme"); } catch { return null; }
  };
  const use = (name) => {
    if (name === "light" || name === "dark") root.dataset.theme = name;
    else delete root.dataset.theme;
  };
  use(kept());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    let current = NAMES.includes(kept()) ? kept() : "system";
    const show = () => {
      button.lastElementChild.textContent = current;
      use(current);
    };
    button.addEventListener("click", () => {
      current = NAMES[(NAMES.indexOf(current) + 1) % NAMES.length];
      try { localStorage.setItem("svidecar-theme", current); } catch { /* It holds until the page is left. */ }
      show();
    });
    show();
  });
})();
