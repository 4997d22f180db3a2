"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const canvas = at("map"), pen = canvas.getContext("2d"), tip = at("tip");
const count = data.x.length, none = -1;
const dark = matchMedia("(prefers-color-scheme: dark)");
const sheets = data.sheets.map((source) => { const image = new Image(); image.onload = redraw; image.src = source; return image; });
const members = data.classes.map(() => 0);
for (const label of data.label) if (label >= 0) members[label]++;

const view = { scale: 1, x: 0, y: 0 };  // pixels of one unit of the map, and the place of its origin
const state = { chosen: none, under: none, pictures: false, classes: new Set(), query: "", hits: null };
let width = 0, height = 0, waiting = false;

// colours ---------------------------------------------------------------------------------------------------------

const FEW = [[211, 62, 46], [26, 85, 50], [145, 60, 33], [352, 62, 50], [271, 45, 55], [48, 90, 40], [186, 75, 34], [322, 55, 52], [95, 55, 36], [20, 35, 35]];

function colour(label) {
  if (label < 0) return dark.matches ? "#8b95a7" : "#6b7587";
  const lift = dark.matches ? 18 : 0;
  if (label < FEW.length && data.classes.length <= FEW.length) {
    const [hue, saturation, light] = FEW[label];
    return `hsl(${hue} ${saturation}% ${light + lift}%)`;
  }
  return `hsl(${(label * 137.508) % 360} ${[70, 45, 85][label % 3]}% ${[44, 34, 54][Math.floor(label / 3) % 3] + lift}%)`;
}

// what is shown ---------------------------------------------------------------------------------------------------

const screenX = (i) => view.x + data.x[i] * view.scale, screenY = (i) => view.y + data.y[i] * view.scale;
const label = (i) => (data.label[i] < 0 ? "" : data.classes[data.label[i]]);
const short = (i) => data.names[i].split("/").pop();

function lit(i) {
  return (!state.classes.size || state.classes.has(data.label[i])) && (!state.hits || state.hits[i]);
}

function fit() {
  const edge = Math.min(44, width / 12), side = Math.max(1, Math.min(width, height) - 2 * edge);
  view.scale = side / data.scale;
  view.x = (width - side) / 2;
  view.y = (height - side) / 2;
  redraw();
}

function zoom(factor, x = width / 2, y = height / 2) {
  const whole = Math.min(width, height) / data.scale;
  const scale = Math.min(whole * 400, Math.max(whole * 0.4, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  redraw();
}

function resize() {
  const box = canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1, first = !width;
  view.x += (box.width - width) / 2;
  view.y += (box.height - height) / 2;
  width = box.width;
  height = box.height;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  first ? fit() : redraw();
}

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(draw);
}

function radius() {
  const zoomed = view.scale / (Math.min(width, height) / data.scale);
  return Math.max(1.6, Math.min(7, (60 / Math.sqrt(count)) * 2 * Math.sqrt(zoomed) + 1));
}

function draw() {
  waiting = false;
  const style = getComputedStyle(document.documentElement), paper = style.getPropertyValue("--paper");
  pen.fillStyle = paper;
  pen.fillRect(0, 0, width, height);
  const r = radius(), visible = [[], []];
  for (let i = 0; i < count; i++) {
    const x = screenX(i), y = screenY(i);
    if (x > -80 && y > -80 && x < width + 80 && y < height + 80) visible[lit(i) ? 1 : 0].push(i);
  }
  pen.globalAlpha = 0.13;
  for (const i of visible[0]) dot(i, r);
  pen.globalAlpha = 0.9;
  state.pictures ? pictures(visible[1], r) : visible[1].forEach((i) => dot(i, r));
  pen.globalAlpha = 1;
  if (state.chosen >= 0) connect(style);
  for (const i of new Set([state.under, state.chosen])) if (i >= 0) ring(i, r, style, paper);
}

function dot(i, r) {
  pen.fillStyle = colour(data.label[i]);
  pen.beginPath();
  pen.arc(screenX(i), screenY(i), r, 0, 7);
  pen.fill();
}

function sideOfPictures() {
  const zoomed = view.scale / (Math.min(width, height) / data.scale);
  return Math.max(18, Math.min(72, (1.1 * Math.min(width, height) * Math.sqrt(zoomed)) / Math.sqrt(count)));
}

function pictures(shown, r) {
  const side = sideOfPictures();
  const taken = new Set(), later = [];
  for (const i of shown) {  // one in each cell, so that none hides another; the others stay dots
    const cell = `${Math.round(data.x[i] * view.scale / side)},${Math.round(data.y[i] * view.scale / side)}`;
    if (taken.has(cell) || !size(i)[0]) dot(i, Math.min(r, 2.2));
    else { taken.add(cell); later.push(i); }
  }
  pen.globalAlpha = 1;
  for (const i of later) framed(i, side - 3, [[1.5, colour(data.label[i])]]);
}

function framed(i, side, frames) {
  const [w, h] = fitted(i, side), x = screenX(i) - w / 2, y = screenY(i) - h / 2;
  for (const [wide, fill] of frames) {
    pen.fillStyle = fill;
    pen.fillRect(x - wide, y - wide, w + 2 * wide, h + 2 * wide);
  }
  paint(pen, i, x, y, w, h);
}

function connect(style) {
  pen.strokeStyle = style.getPropertyValue("--soft");
  pen.lineWidth = 1;
  for (let place = 0; place < data.nearest; place++) {
    const other = data.near[state.chosen * data.nearest + place];
    pen.beginPath();
    pen.moveTo(screenX(state.chosen), screenY(state.chosen));
    pen.lineTo(screenX(other), screenY(other));
    pen.stroke();
  }
}

function ring(i, r, style, paper) {
  if (state.pictures && size(i)[0]) return framed(i, 1.25 * sideOfPictures(), [[6, paper], [4, style.getPropertyValue("--ink")], [2, colour(data.label[i])]]);
  for (const [wide, stroke] of [[5, paper], [2.2, style.getPropertyValue("--ink")]]) {
    pen.lineWidth = wide;
    pen.strokeStyle = stroke;
    pen.beginPath();
    pen.arc(screenX(i), screenY(i), r + 4, 0, 7);
    pen.stroke();
  }
  dot(i, r + 1);
}

// pictures --------------------------------------------------------------------------------------------------------

const size = (i) => (data.sheets.length ? [data.sizes[2 * i], data.sizes[2 * i + 1]] : [0, 0]);

function fitted(i, side) {
  const [w, h] = size(i), factor = side / Math.max(w, h, 1);
  return [Math.max(1, w * factor), Math.max(1, h * factor)];
}

function paint(on, i, x, y, w, h) {
  const per = data.columns * data.columns, cell = i % per, [wide, tall] = size(i), sheet = sheets[Math.floor(i / per)];
  if (!sheet || !sheet.complete || !sheet.naturalWidth) return;
  on.imageSmoothingEnabled = !(data.exact && w > wide);
  on.imageSmoothingQuality = "high";
  on.drawImage(sheet, (cell % data.columns) * data.side, Math.floor(cell / data.columns) * data.side, wide, tall, x, y, w, h);
}

function picture(i, side) {
  if (!size(i)[0]) return null;
  const made = document.createElement("canvas"), ratio = devicePixelRatio || 1, [w, h] = fitted(i, side);
  made.width = Math.round(w * ratio);
  made.height = Math.round(h * ratio);
  made.style.width = `${w}px`;
  paint(made.getContext("2d"), i, 0, 0, made.width, made.height);
  return made;
}

const text = (tag, words) => { const made = document.createElement(tag); made.textContent = words; return made; };

// pointing and choosing -------------------------------------------------------------------------------------------

function nearest(x, y, reach) {
  let best = none, least = reach * reach;
  for (let i = 0; i < count; i++) {
    if (!lit(i)) continue;
    const dx = screenX(i) - x, dy = screenY(i) - y, far = dx * dx + dy * dy;
    if (far < least) { least = far; best = i; }
  }
  return best;
}

function hover(i, x, y) {
  state.under = i;
  tip.hidden = i < 0;
  if (i >= 0) {
    const shown = picture(i, 168), name = label(i);
    tip.replaceChildren(...[shown, name && text("b", name), name && document.createElement("br"), text("span", short(i))].filter(Boolean));
    const left = x + 18 + tip.offsetWidth > width ? x - 18 - tip.offsetWidth : x + 18;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, Math.min(y - 20, height - tip.offsetHeight - 4))}px`;
  }
  redraw();
}

function choose(i, move = false) {
  state.chosen = i;
  at("chosen").hidden = i < 0;
  if (i >= 0) {
    if (move) reveal(i);
    at("title").textContent = label(i) ? `${label(i)} · ${short(i)}` : short(i);
    at("large").replaceChildren(...[picture(i, 170)].filter(Boolean));
    at("path").textContent = data.folder + data.names[i];
    at("alike").hidden = !data.nearest;
    at("near").replaceChildren(...Array.from({ length: data.nearest }, (_, place) => neighbour(i, place)));
  }
  redraw();
}

function neighbour(i, place) {
  const other = data.near[i * data.nearest + place], alike = (data.alike[i * data.nearest + place] / 1000).toFixed(2);
  const item = document.createElement("li"), button = document.createElement("button"), name = label(other) || short(other);
  button.type = "button";
  button.title = data.names[other];
  button.setAttribute("aria-label", `${name}, ${short(other)}, similarity ${alike}`);
  button.append(...[picture(other, 64), text("span", name), text("span", alike)].filter(Boolean));
  button.onclick = () => choose(other, true);
  item.append(button);
  return item;
}

function reveal(i) {
  const x = screenX(i), y = screenY(i), edge = 40;
  if (x < edge || y < edge || x > width - edge || y > height - edge) { view.x += width / 2 - x; view.y += height / 2 - y; }
}

function step(dx, dy) {
  if (state.chosen < 0) return choose(nearest(width / 2, height / 2, Infinity), true);
  let best = none, least = Infinity;
  for (let i = 0; i < count; i++) {
    const x = data.x[i] - data.x[state.chosen], y = data.y[i] - data.y[state.chosen], along = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (i !== state.chosen && along > 0 && aside <= along && lit(i) && along + 2 * aside < least) { least = along + 2 * aside; best = i; }
  }
  if (best >= 0) choose(best, true);
}

// listening -------------------------------------------------------------------------------------------------------

const pressed = new Map();
let moved = 0;
const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); pressed.set(event.pointerId, place(event)); moved = 0; });
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = place(event), before = pressed.get(event.pointerId);
  if (!before) return event.pointerType === "mouse" ? hover(nearest(x, y, 14), x, y) : undefined;
  const others = [...pressed].filter(([id]) => id !== event.pointerId);
  if (others.length) {  // two fingers: zoom about the other one
    const [ox, oy] = others[0][1];
    zoom(Math.hypot(x - ox, y - oy) / Math.max(1, Math.hypot(before[0] - ox, before[1] - oy)), ox, oy);
    moved = 99;
  } else {
    view.x += x - before[0];
    view.y += y - before[1];
    moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
    if (moved > 5) hover(none);
  }
  pressed.set(event.pointerId, [x, y]);
  redraw();
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => {
  if (pressed.delete(event.pointerId) && name === "pointerup" && moved <= 5) choose(nearest(...place(event), event.pointerType === "mouse" ? 14 : 26));
});
canvas.addEventListener("pointerleave", () => hover(none));
canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...place(event)); }, { passive: false });

function swap() {
  state.pictures = !state.pictures;
  at("pictures").setAttribute("aria-pressed", state.pictures);
  redraw();
}

const KEYS = { ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1), "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: fit, p: swap, P: swap, Escape: () => choose(none) };
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key] || ((event.key === "p" || event.key === "P") && at("pictures").hidden)) return;
  event.preventDefault();
  KEYS[event.key]();
});
addEventListener("keydown", (event) => { if (event.key === "/" && document.activeElement !== at("search")) { event.preventDefault(); at("search").focus(); } });
at("in").onclick = () => zoom(1.6);
at("out").onclick = () => zoom(1 / 1.6);
at("all").onclick = fit;
at("pictures").onclick = swap;
at("pictures").hidden = !data.sheets.length;

at("search").addEventListener("input", () => {
  const wanted = at("search").value.trim().toLowerCase();
  state.hits = wanted ? data.names.map((name, i) => (name + "\n" + label(i)).toLowerCase().includes(wanted)) : null;
  const hits = state.hits ? state.hits.filter(Boolean).length : 0;
  at("found").textContent = !wanted ? "" : hits ? `${hits.toLocaleString("en")} of ${count.toLocaleString("en")}; Enter goes to the next` : "nothing is called so";
  redraw();
});
at("search").addEventListener("keydown", (event) => {
  if (event.key === "Escape") { at("search").value = ""; at("search").dispatchEvent(new Event("input")); }
  if (event.key !== "Enter" || !state.hits) return;
  for (let offset = 1; offset <= count; offset++) {
    const i = (state.chosen + offset * (event.shiftKey ? -1 : 1) + 2 * count) % count;
    if (state.hits[i]) return choose(i, true);
  }
});

function legend() {
  at("classes").hidden = !data.classes.length;
  at("every").hidden = !state.classes.size;
  const items = data.classes.map((name, i) => {
    const item = document.createElement("li"), button = document.createElement("button"), blob = document.createElement("i");
    button.type = "button";
    button.setAttribute("aria-pressed", state.classes.has(i));
    blob.style.background = colour(i);
    button.append(blob, text("span", name), text("small", members[i].toLocaleString("en")));
    button.onclick = () => { state.classes.has(i) ? state.classes.delete(i) : state.classes.add(i); legend(); at("legend").children[i].firstChild.focus(); redraw(); };
    item.append(button);
    return item;
  });
  const top = at("legend").scrollTop;
  at("legend").replaceChildren(...items);
  at("legend").scrollTop = top;
}
at("every").onclick = () => { state.classes.clear(); legend(); redraw(); };

dark.addEventListener("change", () => { legend(); redraw(); });
new ResizeObserver(resize).observe(canvas);
legend();
