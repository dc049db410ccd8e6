// Draw and move the new camera on a sphere around the object. gradio provides `element`, `props`, `trigger` and `watch`.
// props.value is the turn [Δpolar, Δazimuth, Δradius] in degrees, degrees and object sizes; the event 'release' requests
// the view.

const R = 100; // radius of the sphere in the drawing; cameras at DEFAULT_RADIUS lie on it
const DEFAULT_RADIUS = 1.85; // object sizes; as in inference/poses.py
const DRAG_DEGREES = 90; // turn for a drag as long as the sphere's radius
const VIEWPOINT = { elevation: 24, azimuth: -30 }; // of the drawing, degrees; azimuth 0 is the picture's camera
const LIMITS = { polar: 90, azimuth: 180, radius: 0.7 };

const svg = element.querySelector("svg");
const sliders = ["polar", "azimuth", "radius"].map((name) => element.querySelector(`input[name=${name}]`));
const radians = (degrees) => (degrees * Math.PI) / 180;

// Return the drawing coordinates (right, down, towards the viewer) of a point: degrees, degrees, object sizes.
function projected(polar, azimuth, radius) {
  const [p, a, e] = [radians(polar), radians(azimuth - VIEWPOINT.azimuth), radians(VIEWPOINT.elevation)];
  return flat([Math.sin(p) * Math.cos(a), Math.sin(p) * Math.sin(a), Math.cos(p)].map((x) => (x * radius * R) / DEFAULT_RADIUS), e);
}
function flat([x, y, z], e) {
  return [y, Math.sin(e) * x - Math.cos(e) * z, Math.cos(e) * x + Math.sin(e) * z];
}

function shape(name, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}

// Draw a curve, split into the parts in front of the object and the parts behind it.
function curve(points, kind, layers) {
  let [piece, front] = [[], points[0][2] >= 0];
  const end = () => piece.length > 1 && shape("polyline", { class: kind, points: piece.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ") }, front ? layers.near : layers.far);
  for (const point of points) {
    piece.push(point);
    if (point[2] >= 0 !== front) {
      end();
      [piece, front] = [[point], point[2] >= 0];
    }
  }
  end();
}

// Draw a camera as a small pyramid whose base faces the object.
function camera(polar, azimuth, radius, kind, layers) {
  const [p, a, e] = [radians(polar), radians(azimuth - VIEWPOINT.azimuth), radians(VIEWPOINT.elevation)];
  const out = [Math.sin(p) * Math.cos(a), Math.sin(p) * Math.sin(a), Math.cos(p)];
  const right = [-Math.sin(a), Math.cos(a), 0];
  const up = [-Math.cos(p) * Math.cos(a), -Math.cos(p) * Math.sin(a), Math.sin(p)];
  const at = (along, x, y) => flat(out.map((o, i) => (o * radius * R) / DEFAULT_RADIUS - o * along + right[i] * x + up[i] * y), e);
  const [apex, ...corners] = [at(0, 0, 0), at(20, -12, -9), at(20, 12, -9), at(20, 12, 9), at(20, -12, 9)];
  const layer = apex[2] >= 0 ? layers.near : layers.far;
  const group = shape("g", { class: `camera ${kind}` }, layer);
  const path = (points) => points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  shape("line", { class: "axis", x1: apex[0], y1: apex[1], x2: 0, y2: 0 }, group);
  for (let i = 0; i < 4; i++) shape("polygon", { points: path([apex, corners[i], corners[(i + 1) % 4]]) }, group);
  shape("polygon", { class: "lens", points: path(corners) }, group);
  shape("circle", { class: "handle", cx: apex[0], cy: apex[1], r: 4 }, group);
}

function range(from, to, step) {
  return Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => from + i * step);
}

function draw() {
  const [polar, azimuth, radius] = props.value;
  const inputPolar = 90 - props.elevation;
  const layers = { far: svg.querySelector(".far"), near: svg.querySelector(".near") };
  layers.far.replaceChildren();
  layers.near.replaceChildren();
  for (const p of [30, 60, 90, 120, 150])
    curve(range(0, 360, 5).map((a) => projected(p, a, DEFAULT_RADIUS)), p === 90 ? "equator" : "grid", layers);
  for (const a of range(0, 315, 45)) curve(range(0, 180, 5).map((p) => projected(p, a, DEFAULT_RADIUS)), "grid", layers);
  const path = range(0, 1, 1 / 48).map((t) => projected(inputPolar + t * polar, t * azimuth, DEFAULT_RADIUS + t * radius));
  curve(path, "path", layers);
  const size = R / DEFAULT_RADIUS; // one object size
  if (props.picture) shape("image", { href: props.picture, x: -size / 2, y: -size / 2, width: size, height: size }, layers.far);
  else shape("circle", { class: "placeholder", r: 22 }, layers.far);
  camera(inputPolar, 0, DEFAULT_RADIUS, "input", layers);
  camera(inputPolar + polar, azimuth, DEFAULT_RADIUS + radius, "target", layers);
  [polar, azimuth, radius].forEach((number, i) => {
    sliders[i].value = number;
    sliders[i].nextElementSibling.value = (number > 0 ? "+" : number < 0 ? "−" : "") + (i < 2 ? `${Math.abs(number)}°` : Math.abs(number).toFixed(2));
    const at = (50 * number) / sliders[i].max; // from the middle, percent
    sliders[i].style.setProperty("--from", `${50 + Math.min(at, 0)}%`);
    sliders[i].style.setProperty("--to", `${50 + Math.max(at, 0)}%`);
  });
  element.querySelector(".hint").textContent = props.note || "drag: move the camera · wheel: change its distance";
  svg.setAttribute("aria-valuetext", `Δpolar ${polar}°, Δazimuth ${azimuth}°, Δradius ${radius}`);
}

// Set the turn, rounded to degrees and 0.05 object sizes and clamped to its limits; the azimuth wraps around.
function turn(polar, azimuth, radius) {
  const within = (number, limit) => Math.min(limit, Math.max(-limit, number));
  const round = Math.abs(azimuth) > 180 ? ((((azimuth + 180) % 360) + 360) % 360) - 180 : azimuth;
  props.value = [Math.round(within(polar, LIMITS.polar)), Math.round(round), Math.round(20 * within(radius, LIMITS.radius)) / 20].map((x) => x + 0);
  draw();
}

let pending = 0;
function release(wait = 0) {
  clearTimeout(pending);
  pending = setTimeout(() => trigger("release"), wait);
}

let drag = null;
svg.addEventListener("pointerdown", (event) => {
  svg.setPointerCapture(event.pointerId);
  drag = { x: event.clientX, y: event.clientY, from: [...props.value], scale: DRAG_DEGREES / (R * svg.getScreenCTM().a) };
  svg.classList.add("dragging");
});
svg.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const [polar, azimuth, radius] = drag.from;
  turn(polar + (event.clientY - drag.y) * drag.scale, azimuth + (event.clientX - drag.x) * drag.scale, radius);
});
for (const name of ["pointerup", "pointercancel"])
  svg.addEventListener(name, () => {
    if (!drag) return;
    const moved = String(drag.from) !== String(props.value);
    drag = null;
    svg.classList.remove("dragging");
    if (moved) release();
  });
svg.addEventListener("dblclick", () => (turn(0, 0, 0), release()));
svg.addEventListener("wheel", (event) => {
  event.preventDefault();
  const [polar, azimuth, radius] = props.value;
  turn(polar, azimuth, radius + 0.05 * Math.sign(event.deltaY));
  release(300);
}, { passive: false });

const KEYS = { ArrowUp: [-5, 0, 0], ArrowDown: [5, 0, 0], ArrowLeft: [0, -5, 0], ArrowRight: [0, 5, 0], "+": [0, 0, -0.05], "-": [0, 0, 0.05] };
svg.addEventListener("keydown", (event) => {
  const step = event.key === "Home" ? props.value.map((x) => -x) : KEYS[event.key];
  if (!step) return;
  event.preventDefault();
  turn(...props.value.map((x, i) => x + step[i]));
  release(400);
});
for (const slider of sliders) {
  slider.addEventListener("input", () => turn(...sliders.map((slider) => Number(slider.value))));
  slider.addEventListener("change", () => release());
}
for (const button of element.querySelectorAll("[data-turn]"))
  button.addEventListener("click", () => (turn(...button.dataset.turn.split(" ").map(Number)), release()));

watch(["value", "picture", "elevation", "note"], draw);
draw();
