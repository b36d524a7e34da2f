// Where in the new picture one photo counts, drawn with the mouse: 64 x 64 bits that the node's input `masks` carries, as
// realrag/injection/drawn_masks.py reads them.
import { element } from "./photo_cards.js";
import { text } from "./words.js";

const SIDE = 64;
const BYTES = (SIDE * SIDE) / 8;
const SHOWN = 448; // pixels of the square on the page
/** @type {[import("./words.js").Key, (x: number, y: number) => boolean][]} */
const AREAS = [
  ["drawing.left", (x) => x < SIDE / 2],
  ["drawing.right", (x) => x >= SIDE / 2],
  ["drawing.top", (x, y) => y < SIDE / 2],
  ["drawing.bottom", (x, y) => y >= SIDE / 2],
  ["drawing.clear", () => false],
];

/** @param {string} masks  the text of the input @returns {Map<string, string>} photo id -> base64 */
export function masksIn(masks) {
  const entries = masks.split(/[,\n]/).map((entry) => entry.trim().split(":"));
  return new Map(entries.filter(([id, bits]) => id && bits).map(([id, bits]) => [id.trim(), bits.trim()]));
}

/** @param {Map<string, string>} masks @returns {string} */
export const masksText = (masks) => [...masks].map(([id, bits]) => `${id}:${bits}`).join(", ");

/** @param {string} mask  base64 @returns {Uint8Array} one value a place, 1 where the photo counts */
function unpack(mask) {
  const cells = new Uint8Array(SIDE * SIDE);
  try {
    const bytes = atob(mask);
    if (bytes.length === BYTES) cells.forEach((_, at) => (cells[at] = (bytes.charCodeAt(at >> 3) >> (7 - (at & 7))) & 1));
  } catch {
    // no base64: drawn anew
  }
  return cells;
}

/** @param {Uint8Array} cells @returns {string} base64; "" where nothing or all is drawn, which is no mask */
function pack(cells) {
  const count = cells.reduce((sum, cell) => sum + cell, 0);
  if (!count || count === cells.length) return "";
  const bytes = new Uint8Array(BYTES);
  cells.forEach((cell, at) => (bytes[at >> 3] |= cell << (7 - (at & 7))));
  return btoa(String.fromCharCode(...bytes));
}

/** Let somebody draw; `done` gets the mask, "" for none, once it is saved. @param {string} name of the photo
 * @param {string} before base64 @param {(mask: string) => void} done */
export function drawMask(name, before, done) {
  const cells = unpack(before);
  const dialog = element("dialog", "realrag-large realrag-drawing");
  dialog.tabIndex = -1;
  const canvas = element("canvas", "");
  [canvas.width, canvas.height] = [SHOWN, SHOWN];
  const brush = element("input", "");
  Object.assign(brush, { type: "range", min: "1", max: "16", value: "5", title: text("drawing.brush") });
  const paint = () => {
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const size = SHOWN / SIDE;
    context.fillStyle = "#1c1c1c";
    context.fillRect(0, 0, SHOWN, SHOWN);
    context.fillStyle = "#6fbf73";
    cells.forEach((cell, at) => cell && context.fillRect((at % SIDE) * size, Math.floor(at / SIDE) * size, size, size));
    context.strokeStyle = "#fff3"; // thirds, to place things by
    for (const third of [SHOWN / 3, (2 * SHOWN) / 3]) {
      context.strokeRect(third, -1, 0, SHOWN + 2);
      context.strokeRect(-1, third, SHOWN + 2, 0);
    }
  };
  /** @param {PointerEvent} event */
  const stroke = (event) => {
    if (!(event.buttons & 3)) return;
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top].map((place) => (place / box.width) * SIDE - 0.5);
    const erase = event.buttons & 2 || event.shiftKey;
    cells.forEach((_, at) => {
      if (Math.hypot((at % SIDE) - x, Math.floor(at / SIDE) - y) <= Number(brush.value)) cells[at] = erase ? 0 : 1;
    });
    paint();
  };
  canvas.addEventListener("pointerdown", (event) => (canvas.setPointerCapture(event.pointerId), stroke(event)));
  canvas.addEventListener("pointermove", stroke);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  /** @param {import("./words.js").Key} key @param {() => void} press */
  const button = (key, press) => {
    const made = element("button", "", text(key));
    made.type = "button";
    made.addEventListener("click", press);
    return made;
  };
  const areas = element("menu", "");
  areas.append(...AREAS.map(([key, inside]) => button(key, () => {
    cells.forEach((_, at) => (cells[at] = Number(inside(at % SIDE, Math.floor(at / SIDE)))));
    paint();
  })), brush);
  const ends = element("menu", "");
  ends.append(button("drawing.cancel", () => dialog.close()), button("drawing.save", () => (done(pack(cells)), dialog.close())));
  dialog.append(
    element("div", "realrag-name", text("drawing.title", { name })),
    element("div", "", text("drawing.help")),
    canvas, areas, ends,
  );
  dialog.addEventListener("keydown", (event) => event.stopPropagation()); // the page's own shortcuts delete nodes
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  paint();
  dialog.focus();
}
