// Moves the charts of a precomputed grid (window.GRIDS, written by the book's build). Nothing is computed here.
(() => {
  "use strict";
  const W = 400, H = 240, LEFT = 44, RIGHT = 22, TOP = 12, BOTTOM = 42;
  const MARKS = ["M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-4-4h8v8h-8z", "M0-5l5 9h-10z"]; // a second cue beside the colour
  const node = (name, attributes, parent, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const html = (name, className, parent, text = "") => {
    const made = Object.assign(document.createElement(name), { className, textContent: text });
    parent.append(made);
    return made;
  };

  function chart(grid, panel, parent) {
    const box = html("div", "chart", parent);
    html("p", "axis-title", box, panel.label);
    const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" }, box);
    const apart = panel.bars ? 9 : 0; // series with intervals stand side by side
    const shift = (number) => apart * (number - (Object.keys(panel.series).length - 1) / 2);
    const pad = 1.5 * apart; // the first bar keeps off the axis
    const x = (stop, number) => shift(number ?? (Object.keys(panel.series).length - 1) / 2) + LEFT + pad + (W - LEFT - RIGHT - 2 * pad) * grid.slider.at[stop];
    const y = (value) => H - BOTTOM - ((H - BOTTOM - TOP) * (value - panel.low)) / (panel.high - panel.low);
    const width = (parts) => String(+((panel.high - panel.low) / parts).toPrecision(3)).length;
    const parts = [4, 5, 3].reduce((best, other) => (width(other) < width(best) ? other : best)); // round numbers
    for (let tick = 0; tick <= parts; tick++) {
      const value = panel.low + ((panel.high - panel.low) * tick) / parts;
      node("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(value), y2: y(value) }, svg);
      node("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, svg, String(+value.toPrecision(3)));
    }
    let last = -99;
    grid.slider.labels.forEach((label, stop) => { // only labels that do not touch their neighbour
      if (x(stop) - last < 26) return;
      last = x(stop);
      node("text", { x: last, y: H - BOTTOM + 16, "text-anchor": "middle" }, svg, label);
    });
    node("text", { x: (LEFT + W - RIGHT) / 2, y: H - 6, "text-anchor": "middle" }, svg, grid.slider.label);
    const rule = node("line", { class: "rule", y1: TOP, y2: H - BOTTOM }, svg);
    if (panel.level) {
      node("line", { class: "level", x1: LEFT, x2: W - RIGHT, y1: y(panel.level.value), y2: y(panel.level.value) }, svg);
    }
    const list = html("ul", "values", box);
    const rows = Object.entries(panel.series).map(([label, values], number) => {
      if (panel.bars) values.forEach((_, stop) => {
        const ends = { y1: y(panel.bars.low[label][stop]), y2: y(panel.bars.high[label][stop]) };
        node("line", { class: `bar s${number}`, x1: x(stop, number), x2: x(stop, number), ...ends }, svg);
      });
      node("polyline", { class: `line s${number}`, points: values.map((v, i) => `${x(i, number)},${y(v)}`).join(" ") }, svg);
      const mark = node("path", { class: `mark s${number}`, d: MARKS[number % 3] }, svg);
      const item = html("li", "", list);
      const key = node("svg", { class: "key", viewBox: "0 0 30 12", "aria-hidden": "true" }, item);
      node("line", { class: `line s${number}`, x1: 1, x2: 29, y1: 6, y2: 6 }, key);
      node("path", { class: `mark s${number}`, d: MARKS[number % 3], transform: "translate(15 6)" }, key);
      html("span", "", item, label + " ");
      return { label, values, mark, shown: html("b", "", item) };
    });
    if (panel.level) html("li", "", list, `dotted line: ${panel.level.label} ${panel.level.value.toFixed(panel.digits)}${panel.unit}`);
    return (stop) => {
      rule.setAttribute("x1", x(stop));
      rule.setAttribute("x2", x(stop));
      const said = rows.map(({ label, values, mark, shown }, number) => {
        mark.setAttribute("transform", `translate(${x(stop, number)} ${y(values[stop])}) scale(1.4)`);
        shown.textContent = values[stop].toFixed(panel.digits) + panel.unit;
        return `${label} ${shown.textContent}`;
      });
      svg.setAttribute("aria-label", `${panel.label}; ${grid.slider.label} = ${grid.slider.labels[stop]}: ${said.join(", ")}`);
      return said.join(", ");
    };
  }

  // Two heat maps on one scale: a matrix, and what is rebuilt of it at each stop.
  function heat(grid, parent) {
    const { label, fixed, moving } = grid.pictures;
    const box = html("div", "chart", parent);
    html("p", "axis-title", box, label);
    const pair = html("div", "heat", box);
    const [paint, repaint] = [fixed.label, moving.label].map((name) => {
      const side = html("div", "", pair), canvas = html("canvas", "", side), below = html("p", "", side, name);
      canvas.width = canvas.height = Math.sqrt(fixed.values.length);
      canvas.setAttribute("role", "img");
      const pen = canvas.getContext("2d");
      return (values, text) => {
        values.forEach((value, i) => {
          const pale = 250 - 2.1 * Math.abs(value); // white at zero
          const [red, green, blue] = value < 0 ? [250 + 0.4 * value, 250 + 1.5 * value, pale] : [pale, 250 - 1.2 * value, 250 - 0.6 * value];
          pen.fillStyle = `rgb(${red} ${green} ${blue})`;
          pen.fillRect(i % canvas.width, Math.floor(i / canvas.width), 1, 1);
        });
        below.textContent = text;
        canvas.setAttribute("aria-label", `Heat map of ${text}`);
      };
    });
    paint(fixed.values, fixed.label);
    return (stop) => repaint(moving.values[stop], `${moving.label} at ${grid.slider.label} = ${grid.slider.labels[stop]}`);
  }

  document.querySelectorAll("figure.slider").forEach((figure) => {
    const grid = window.GRIDS[figure.dataset.grid];
    const input = figure.querySelector("input");
    const charts = grid.panels.map((panel) => chart(grid, panel, figure.querySelector(".charts")));
    const pictures = grid.pictures ? heat(grid, figure.querySelector(".charts")) : () => {};
    const move = () => {
      const stop = Number(input.value);
      figure.querySelector("output").textContent = grid.slider.labels[stop];
      const said = charts.map((draw) => draw(stop));
      pictures(stop);
      input.setAttribute("aria-valuetext", `${grid.slider.labels[stop]}: ${said.join("; ")}`);
    };
    input.addEventListener("input", move);
    move();
  });
})();
