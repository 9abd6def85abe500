// Search over the book's words, whatever their form or spelling. No page here: book.js shows what is found, Node tests it.
// window.ENTRIES = [[file, page, id, heading, text], ...] is written by the book's build.
(() => {
  "use strict";
  const WORD = /[\p{L}\p{N}]+(?:[-_.][\p{L}\p{N}]+)*/gu;
  const GREEK = Object.fromEntries(("α alpha β beta γ gamma δ delta ε epsilon ϵ epsilon ζ zeta η eta θ theta ϑ theta ι iota κ kappa λ lambda " +
    "μ mu µ mu ν nu ξ xi π pi ρ rho ϱ rho σ sigma ς sigma τ tau υ upsilon φ phi ϕ phi χ chi ψ psi ω omega").split(" ").reduce((pairs, word, i, all) => (
    i % 2 ? pairs : [...pairs, [word, all[i + 1]]]), []));
  // American and British spelling meet in one form, which need be neither's.
  const SPELLINGS = [
    [/iz(e|es|ed|er|ers|ing|able|ations?)$/, "is$1"], [/yz(e|es|ed|er|ers|ing)$/, "ys$1"],
    [/^(.{3,})our(s|ed|ing|al|ful|less|able)?$/, "$1or$2"], [/^(.{3,})tre(s|d)?$/, (all, stem, end) => `${stem}ter${{ s: "s", d: "ed" }[end] ?? ""}`],
    [/ogue(s?)$/, "og$1"], [/^grey/, "gray"], [/^artefact/, "artifact"], [/^programme(s?)$/, "program$1"],
    [/^(lic|def|off)ence(s?)$/, "$1ense$2"], [/^practis/, "practic"],
  ];
  const SUFFIXES = [/(?:ations?|itions?|ating|ated|ates?|ions?|ings?|ments?|able|ness|ity|ed|ly)$/, /(?:er|or)s?$/];

  const SMALL = new Set("a an and are at do does for how i in is it of on or the to what when where which why with".split(" "));

  const plain = (text) => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase().replace(/[^\x00-\x7f]/g, (letter) => GREEK[letter] ?? letter);

  const stems = new Map();
  // What decompose, decomposed, decomposing and decomposition have in common.
  function stem(word) {
    if (stems.has(word)) return stems.get(word);
    let found = word;
    if (/^[a-z]{4,}$/.test(word)) {
      for (const [spelling, other] of SPELLINGS) found = found.replace(spelling, other);
      if (found.endsWith("ies") && found.length > 4) found = found.slice(0, -3) + "y";
      else if (/(?:ss|sh|ch|x)es$/.test(found)) found = found.slice(0, -2);
      else if (/[^siu]s$/.test(found) && !/ias$/.test(found)) found = found.slice(0, -1);
      for (const suffix of SUFFIXES) {
        const cut = found.replace(suffix, "");
        if (cut.length > 2 && /[aeiouy]/.test(cut)) found = cut;
      }
      found = found.replace(/e$/, "").replace(/([b-df-hj-np-tv-z])\1$/, "$1").replace(/y$/, "i");
    }
    stems.set(word, found);
    return found;
  }

  // The words of a text: {at, end, parts}, keep_ratio and water-filling in parts and as a whole.
  function words(text) {
    return [...text.matchAll(WORD)].map((match) => {
      const parts = plain(match[0]).match(/[a-z]+|\d+(?:\.\d+)?/g) ?? [];
      const whole = parts.length > 1 ? parts.join("") : null, apart = /[-_.]/.test(match[0]);
      return { at: match.index, end: match.index + match[0].length, parts, whole, apart };
    });
  }
  const forms = (text) => words(text).flatMap(({ parts, whole }) => (whole ? [...parts, whole] : parts));

  // Letters to add, drop, change or swap with their neighbour; more than ``limit`` is not counted to the end.
  function distance(a, b, limit) {
    if (Math.abs(a.length - b.length) > limit) return limit + 1;
    let before = [], last = Array.from({ length: b.length + 1 }, (_, i) => i);
    for (let i = 1; i <= a.length; i++) {
      const row = [i];
      for (let j = 1; j <= b.length; j++) {
        row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] !== b[j - 1]));
        if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) row[j] = Math.min(row[j], before[j - 2] + 1);
      }
      if (Math.min(...row) > limit) return limit + 1;
      [before, last] = [last, row];
    }
    return Math.min(last[b.length], limit + 1);
  }

  // Which entries hold which stem, and how often: in the heading, the page's title, the text.
  function index(entries) {
    const holds = new Map(), raw = new Map();
    const add = (text, number, place) => {
      for (const form of forms(text)) {
        const root = stem(form);
        if (!raw.has(form)) raw.set(form, root);
        if (!holds.has(root)) holds.set(root, new Map());
        const counts = holds.get(root).get(number) ?? [0, 0, 0];
        counts[place]++;
        holds.get(root).set(number, counts);
      }
    };
    entries.forEach(([, page, , heading, text], number) => [heading, page, text].forEach((part, place) => add(part, number, place)));
    // Headings by their stems, to tell a term that is asked for by its name.
    const heads = entries.map(([, , , heading]) => forms(heading).map(stem).join(" "));
    return { entries, holds, raw, heads };
  }

  // The stems that a word of the query may mean, each with its weight; ``instead``: what was taken for a word that is nowhere.
  function meant(book, word, instead) {
    const found = new Map(), root = stem(word);
    const put = (key, weight) => found.set(key, Math.max(weight, found.get(key) ?? 0));
    if (book.holds.has(root)) put(root, 1);
    if (word.length > 1) for (const [form, key] of book.raw) if (form.startsWith(word)) put(key, 0.5);
    if (found.size || word.length < 4) return [found];
    for (let i = 2; i < word.length - 1; i++) { // waterfilling, written apart
      const halves = [word.slice(0, i), word.slice(i)];
      if (halves.every((half) => half.length > 2 && book.raw.has(half))) return halves.map((half) => new Map([[stem(half), 1]]));
    }
    const limit = word.length < 7 ? 1 : 2;
    let best = limit + 1;
    for (const [form, key] of book.raw) {
      const far = distance(word, form, limit);
      if (far > limit || form.length < 3) continue;
      if (far < best) found.clear();
      if (far > best) continue;
      put(key, 0.6);
      instead[word] = far < best ? form : `${instead[word]}, ${form}`;
      best = far;
    }
    return [found];
  }

  // {hits: [{entry, points, stems}], instead}: entries that hold all words of the query, or else most of them.
  function find(book, query) {
    const instead = {}, typed = words(query);
    // int4 is one word, keep-ratio is two.
    const asked = typed.flatMap(({ parts, whole, apart }) => (!apart && book.holds.has(whole) ? [whole] : parts));
    const large = asked.filter((word) => !SMALL.has(word));
    const wanted = (large.length ? large : asked).flatMap((word) => meant(book, word, instead));
    const likeliest = wanted.map((keys) => [...keys].reduce((best, other) => (other[1] > best[1] ? other : best), ["", 0])[0]).join(" ");
    const scores = new Map();
    wanted.forEach((keys, place) => {
      const here = new Map();
      for (const [key, weight] of keys) {
        const rare = Math.log(1 + book.entries.length / book.holds.get(key).size);
        for (const [number, [head, page, text]] of book.holds.get(key)) {
          const points = weight * rare * ((head ? 6 : 0) + (page ? 3 : 0) + (text ? 1 + Math.log(text) : 0));
          here.set(number, Math.max(points, here.get(number) ?? 0));
        }
      }
      for (const [number, points] of here) {
        const score = scores.get(number) ?? { points: 0, held: 0 };
        scores.set(number, { points: score.points + points, held: score.held + 1 });
      }
    });
    const most = Math.max(0, ...[...scores.values()].map(({ held }) => held));
    const all = new Set(wanted.flatMap((keys) => [...keys.keys()]));
    const hits = [...scores].filter(([, { held }]) => held === most).map(([number, { points }]) => ({
      entry: book.entries[number],
      points: (points + (book.heads[number] === likeliest ? 40 : 0)) * (/^(api-|claims)/.test(book.entries[number][0]) ? 0.25 : 1),
      stems: all,
    }));
    return { hits: hits.sort((a, b) => b.points - a.points), instead };
  }

  // Where in a text the first of these stems stands: [at, end], or none.
  function place(text, wanted) {
    const found = words(text).find(({ parts, whole }) => [...parts, whole ?? ""].some((form) => wanted.has(stem(form))));
    return found && [found.at, found.end];
  }

  globalThis.Search = { stem, distance, index, find, place };
})();
