// Three things a server cannot do for its page: say that the server itself is gone, put the cursor where a scanner types, and send a form without leaving.
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
  addEventListener("submit", async (event) => {
    const form = event.target, method = form.dataset.send;
    if (!method) return;
    event.preventDefault();
    const button = form.querySelector("button"), said = form.querySelector("[role=alert]");
    button.disabled = true;
    said.textContent = "";
    try {
      const body = method === "POST" ? JSON.stringify(Object.fromEntries(new FormData(form))) : null;
      const answer = await fetch(form.action, { method, body });
      if (!answer.ok) said.textContent = (await answer.json()).detail;
    } catch (error) { said.textContent = `The hub does not answer (${error.message}): try again.`; }
    button.disabled = false;
  });
})();
