// Two things a server cannot do for its page: say that the server itself is gone, and put the cursor where a scanner types.
(() => {
  let beat = null, seen = Date.now();
  setInterval(() => {
    const at = document.getElementById("beat")?.dataset.beat ?? null;
    if (at !== beat) { beat = at; seen = Date.now(); }
    const quiet = Math.round((Date.now() - seen) / 1000);
    document.body.classList.toggle("gone", quiet >= 5);
    const since = document.getElementById("gone-s");
    if (since) since.textContent = quiet;
    document.body.classList.toggle("silent", document.getElementById("beat")?.dataset.silent === "1");
  }, 500);
  const ask = () => document.querySelector(".ask input") ?? document.querySelector(".bar input");
  const wait = setInterval(() => {
    const field = document.querySelector("[data-focus]");
    if (!field && !document.querySelector(".page")) return;
    clearInterval(wait);
    if (field && document.activeElement === document.body) { field.focus(); field.select(); }
  }, 30);
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); ask()?.focus(); ask()?.select(); }
  });
})();
