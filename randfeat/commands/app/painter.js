// Mask over a picture, kept in the picture's own pixels and sent as a PNG, white where to paint.
const find = (selector) => element.querySelector(selector);
const canvas = find("canvas"), pen = canvas.getContext("2d", { willReadFrequently: true });
const brush = find(".brush"), eraser = find(".eraser");
let picture = null, mask = null, at = null, last = null, byKeys = false;

// radius in pixels of the picture: from one to a third of the longer side
const radius = () => Math.max(0.5, (Math.max(canvas.width, canvas.height) / 3) * (brush.value / 100) ** 1.5);

function draw() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (!picture) return;
  pen.drawImage(picture, 0, 0);
  const seen = pen.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < mask.length; i++) {
    if (!mask[i]) continue;
    seen.data[4 * i] = 0.35 * seen.data[4 * i] + 0.65 * 217;
    seen.data[4 * i + 1] = 0.35 * seen.data[4 * i + 1] + 0.65 * 115;
    seen.data[4 * i + 2] = 0.35 * seen.data[4 * i + 2] + 0.65 * 13;
  }
  pen.putImageData(seen, 0, 0);
  if (byKeys && at) ring();
}

function ring() {
  pen.lineWidth = Math.max(canvas.width / 200, 0.4);
  pen.strokeStyle = "#2b6cb0";
  pen.beginPath();
  pen.arc(at.x, at.y, radius(), 0, 2 * Math.PI);
  pen.stroke();
}

// marks the pixels whose centres are within the radius; a brush smaller than a pixel marks the one under it
function stamp(x, y, value) {
  const r = radius(), w = canvas.width, h = canvas.height;
  for (let row = Math.max(0, Math.floor(y - r)); row <= Math.min(h - 1, Math.floor(y + r)); row++)
    for (let column = Math.max(0, Math.floor(x - r)); column <= Math.min(w - 1, Math.floor(x + r)); column++) {
      const inside = (row + 0.5 - y) ** 2 + (column + 0.5 - x) ** 2 <= r * r;
      if (inside || (row === Math.floor(y) && column === Math.floor(x))) mask[row * w + column] = value;
    }
}

function stroke(from, to, value) {
  const steps = Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(radius() / 2, 0.5)) || 1;
  for (let i = 0; i <= steps; i++)
    stamp(from.x + ((to.x - from.x) * i) / steps, from.y + ((to.y - from.y) * i) / steps, value);
  draw();
}

const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return {
    x: ((event.clientX - box.left) * canvas.width) / box.width,
    y: ((event.clientY - box.top) * canvas.height) / box.height,
  };
};

canvas.addEventListener("pointerdown", (event) => {
  if (!picture || event.button) return;
  canvas.setPointerCapture(event.pointerId);
  byKeys = false;
  last = place(event);
  stroke(last, last, eraser.checked ? 0 : 1);
});
canvas.addEventListener("pointermove", (event) => {
  if (!last) return;
  const now = place(event);
  stroke(last, now, eraser.checked ? 0 : 1);
  last = now;
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));

canvas.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (!picture || (!(event.key in moves) && ![" ", "e", "E"].includes(event.key))) return;
  event.preventDefault();
  byKeys = true;
  at = at || { x: canvas.width / 2, y: canvas.height / 2 };
  if (event.key in moves) {
    const far = Math.max(1, Math.round(radius() / 2)), [x, y] = moves[event.key];
    at = {
      x: Math.min(canvas.width - 0.5, Math.max(0.5, at.x + far * x)),
      y: Math.min(canvas.height - 0.5, Math.max(0.5, at.y + far * y)),
    };
    draw();
  } else stroke(at, at, event.key === " " && !eraser.checked ? 1 : 0);
});
canvas.addEventListener("blur", () => { byKeys = false; draw(); });

find(".clear").addEventListener("click", () => { if (mask) mask.fill(0); draw(); });

async function show() {
  const given = props.value;
  if (!given || !given.url) {
    picture = mask = at = null;
    return draw();
  }
  const loaded = new Image();
  loaded.src = given.url;
  await loaded.decode();
  [canvas.width, canvas.height] = [given.width, given.height];
  // as large as the page allows, and no higher than the window
  canvas.style.width = `min(100%, ${(75 * given.width) / given.height}vh)`;
  [picture, mask, at] = [loaded, new Uint8Array(given.width * given.height), null];
  draw();
}

element.closest("#painter").mask = () => {
  if (!mask) return null;
  const sent = document.createElement("canvas");
  [sent.width, sent.height] = [canvas.width, canvas.height];
  const white = new ImageData(canvas.width, canvas.height);
  mask.forEach((value, i) => white.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
  sent.getContext("2d").putImageData(white, 0, 0);
  return sent.toDataURL("image/png");
};

watch("value", show);
show();
