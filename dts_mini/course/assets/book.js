// Theme, contents on a phone, what search finds (search.js), copying of code, and print.
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

  const SHOWN = 12;
  const input = get("search"), list = get("found"), count = get("found-count");
  let book; // its words, read when they are first asked for

  function search() {
    const asked = input.value.trim();
    book ??= Search.index(window.ENTRIES);
    const { hits, instead } = asked ? Search.find(book, asked) : { hits: [], instead: {} };
    const other = Object.entries(instead).map(([word, taken]) => `no “${word}”, but “${taken}”: `).join("");
    count.textContent = asked ? `${other}${hits.length > SHOWN ? `the best ${SHOWN} of ` : ""}${hits.length} found` : "";
    list.replaceChildren(...hits.slice(0, SHOWN).map(({ entry: [file, page, id, heading, text], stems }) => {
      const item = document.createElement("li"), link = document.createElement("a"), small = document.createElement("small");
      link.href = `${file}#${encodeURIComponent(id)}`;
      link.textContent = heading;
      const [at, end] = Search.place(text, stems) ?? [0, 0];
      const from = at > 40 ? text.indexOf(" ", at - 40) + 1 : 0, mark = document.createElement("mark");
      mark.textContent = text.slice(at, end);
      small.append(heading === page ? "" : `${page}: `, from ? "…" : "", text.slice(from, at), mark, `${text.slice(end, from + 100)}…`);
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

  // A link into the page closes the contents on a phone; a printed page shows what is folded, but the answers of a quiz.
  get("side").addEventListener("click", (event) => {
    if (event.target.closest("a")) {
      get("side").classList.remove("open");
      get("menu").setAttribute("aria-expanded", "false");
    }
  });
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open], .answer)")];
    opened.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => opened.splice(0).forEach((each) => { each.open = false; }));

  // A button on each block of code; of a console or of examples only what is typed is copied.
  document.querySelectorAll("main .highlight").forEach((block) => {
    const button = Object.assign(document.createElement("button"), { className: "copy", type: "button", textContent: "Copy" });
    button.setAttribute("aria-label", "Copy this code");
    button.addEventListener("click", async () => {
      const code = block.querySelector("pre").cloneNode(true), typed = code.querySelector(".gp");
      if (typed) code.querySelectorAll(".line-of-code").forEach((line) => { if (!line.querySelector(".gp")) line.remove(); });
      code.querySelectorAll(".gp").forEach((prompt) => prompt.remove());
      const text = code.textContent.replace(/\s+$/, "\n");
      try { await navigator.clipboard.writeText(text); } catch { // a browser that gives pages on disk no clipboard
        const box = Object.assign(document.createElement("textarea"), { value: text });
        document.body.append(box);
        box.select();
        document.execCommand("copy");
        box.remove();
      }
      button.classList.add("done");
      button.textContent = "Copied";
      button.setAttribute("aria-label", "Copied");
      setTimeout(() => {
        button.classList.remove("done");
        button.textContent = "Copy";
        button.setAttribute("aria-label", "Copy this code");
      }, 2000);
    });
    block.append(button);
  });
})();
