"use strict";
(() => {
  const data = JSON.parse(document.getElementById("clouds").textContent);
  const svg = document.getElementById("plot"), about = document.getElementById("chosen");
  const controls = document.getElementById("controls");
  const width = 900, height = 540, edge = 40, space = "http://www.w3.org/2000/svg";
  const names = Object.keys(data.titles), hidden = new Set();
  const end = names.includes("bridged") ? "bridged" : "audio";
  let view = 0, chosen = -1, placed = {};

  const make = (tag, attributes, parent = svg) => {
    const node = document.createElementNS(space, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return parent.appendChild(node);
  };
  const shape = (name, [x, y], size) => ({
    audio: ["circle", { cx: x, cy: y, r: size }],
    text: ["path", { d: `M${x} ${y - 1.3 * size}l${1.3 * size} ${1.3 * size}l${-1.3 * size} ${1.3 * size}l${-1.3 * size} ${-1.3 * size}z` }],
    bridged: ["path", { d: `M${x} ${y - 1.3 * size}l${1.25 * size} ${2.2 * size}h${-2.5 * size}z` }],
  }[name]);
  const shapeOf = (name, at, size, style, parent = svg) => {
    const [tag, attributes] = shape(name, at, size);
    return make(tag, { ...attributes, class: `${name} ${style}` }, parent);
  };

  function place() {
    const points = data.views[view].points;
    const all = names.flatMap((name) => points[name]);
    const span = [0, 1].map((k) => [Math.min(...all.map((p) => p[k])), Math.max(...all.map((p) => p[k]))]);
    const at = (p) => [
      edge + (p[0] - span[0][0]) / (span[0][1] - span[0][0] || 1) * (width - 2 * edge),
      height - edge - (p[1] - span[1][0]) / (span[1][1] - span[1][0] || 1) * (height - 2 * edge)];
    placed = Object.fromEntries(names.map((name) => [name, points[name].map(at)]));
  }
  function draw() {
    svg.replaceChildren();
    const axes = data.views[view].axes;
    make("text", { x: width / 2, y: height - 10, class: "axis", "text-anchor": "middle" }).textContent = axes[0];
    make("text", { x: 16, y: height / 2, class: "axis", "text-anchor": "middle",
      transform: `rotate(-90 16 ${height / 2})` }).textContent = axes[1];
    const shown = names.filter((name) => !hidden.has(name));
    if (shown.includes(end) && shown.includes("text"))
      placed.text.forEach((p, i) => make("path", { class: "pair", d: `M${p}L${placed[end][i]}` }));
    for (const name of shown) placed[name].forEach((p) => shapeOf(name, p, 3.6, "point"));
    if (chosen >= 0) {
      const path = shown.map((name) => placed[name][chosen]);
      make("path", { d: "M" + path.join("L"), fill: "none", class: "chosen" });
      for (const name of shown) shapeOf(name, placed[name][chosen], 7, "chosen");
    }
  }
  function choose(i) {
    chosen = i;
    const after = data.bridgedCosine ? `, bridged ${data.bridgedCosine[i].toFixed(3)}` : "";
    about.replaceChildren();
    const line = about.appendChild(document.createElement("div"));
    line.style.color = "var(--ink)";
    line.textContent = data.captions ? data.captions[i] : `Clip ${data.clips[i]}`;
    about.append(`Clip ${data.clips[i]}; cosine of sound and caption ${data.cosine[i].toFixed(3)}${after}`);
    draw();
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * width / box.width, y = (event.clientY - box.top) * height / box.height;
    let best = -1, nearest = 900;
    for (const name of names.filter((n) => !hidden.has(n)))
      placed[name].forEach((p, i) => {
        const away = (p[0] - x) ** 2 + (p[1] - y) ** 2;
        if (away < nearest) [nearest, best] = [away, i];
      });
    if (best >= 0 && best !== chosen) choose(best);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const n = data.clips.length;
    choose(chosen < 0 ? 0 : (chosen + step + n) % n);
  });
  if (data.views.length > 1) data.views.forEach((one, i) => {
    const button = controls.appendChild(document.createElement("button"));
    button.textContent = one.method.toUpperCase();
    button.setAttribute("aria-pressed", i === 0);
    button.addEventListener("click", () => {
      view = i;
      for (const other of controls.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
      place(); draw();
    });
  });
  for (const name of names) {
    const label = controls.appendChild(document.createElement("label"));
    const box = label.appendChild(document.createElement("input"));
    box.type = "checkbox"; box.checked = true;
    box.addEventListener("change", () => { box.checked ? hidden.delete(name) : hidden.add(name); draw(); });
    const sample = make("svg", { width: 16, height: 14, viewBox: "0 0 16 14" }, label);
    shapeOf(name, [8, 7], 4.5, "", sample);
    label.append(" " + data.titles[name]);
  }
  place(); draw();
})();
