// Theme, contents on a phone, and search over window.SEARCH = [[file, page, id, heading, text], ...].
(() => {
  "use strict";
  const root = document.documentElement;
  const get = (id) => document.getElementById(id);

  get("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a browser that keeps nothing for files */ }
  });

  get("menu").addEventListener("click", () => {
    const open = get("side").classList.toggle("open");
    get("menu").setAttribute("aria-expanded", open);
    if (open) get("search").focus();
  });

  const input = get("search"), list = get("found"), count = get("found-count");
  const plain = (text) => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
  const entries = window.SEARCH.map(([file, page, id, heading, text]) => (
    { file, page, id, heading, text, head: plain(`${heading} ${page}`), body: plain(text) }
  ));

  function search() {
    const words = plain(input.value).split(/\s+/).filter(Boolean);
    const score = (entry) => words.reduce((sum, word) => {
      const points = entry.head.includes(word) ? 5 : entry.body.includes(word) ? 1 : 0;
      return sum < 0 || !points ? -1 : sum + points;
    }, 0);
    const hits = words.length === 0 ? [] : entries.map((entry) => ({ entry, points: score(entry) }))
      .filter((hit) => hit.points > 0).sort((a, b) => b.points - a.points).slice(0, 12);
    count.textContent = words.length ? `${hits.length === 12 ? "the best 12" : hits.length} found` : "";
    list.replaceChildren(...hits.map(({ entry }) => {
      const item = document.createElement("li"), link = document.createElement("a"), small = document.createElement("small");
      link.href = `${entry.file}#${encodeURIComponent(entry.id)}`;
      link.textContent = entry.heading;
      const at = Math.max(0, entry.body.indexOf(words[0]) - 30);
      small.textContent = `${entry.page}: ${at ? "…" : ""}${entry.text.slice(at, at + 90)}…`;
      link.append(small);
      item.append(link);
      return item;
    }));
  }
  input.addEventListener("input", search);

  document.addEventListener("keydown", (event) => {
    const links = [...list.querySelectorAll("a")], here = links.indexOf(document.activeElement);
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      get("side").classList.add("open");
      input.focus();
    } else if (event.key === "Escape" && (here >= 0 || document.activeElement === input)) {
      input.value = "";
      search();
      input.focus();
    } else if (event.key === "Enter" && document.activeElement === input && links.length) {
      links[0].click();
    } else if (links.length && (here >= 0 || document.activeElement === input) && /^Arrow(Down|Up)$/.test(event.key)) {
      event.preventDefault();
      (links[here + (event.key === "ArrowDown" ? 1 : -1)] ?? input).focus();
    }
  });

  // A link into the page closes the contents on a phone; a printed page shows what is folded.
  get("side").addEventListener("click", (event) => {
    if (event.target.closest("a")) {
      get("side").classList.remove("open");
      get("menu").setAttribute("aria-expanded", "false");
    }
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
})();
