// What cards of photos are made of: elements whose words are text and never markup, their style, and the large view.
import { api } from "../../scripts/api.js";
import { text } from "./words.js";

/**
 * @typedef {object} Photo  one reference, as nodes/retrieval/preview.py sends it
 * @property {string} id
 * @property {number} rank  1 is the best
 * @property {number} score
 * @property {string} found  "by name", "by caption", "by look" or "pinned"; foundBy has its words
 * @property {string} object  of several in the prompt, the one it was found for
 * @property {boolean} doubtful
 * @property {string} name
 * @property {string} caption
 * @property {string} credit
 * @property {string} author
 * @property {string} license
 * @property {boolean} [licensed]  whether any photo of this answer states a license
 * @property {{filename: string, subfolder: string, type: string}} photo
 */

const STYLE = `
.realrag-cards { display: flex; flex-direction: column; gap: 6px; height: 100%; min-height: 0; overflow: hidden;
  box-sizing: border-box; padding: 2px 4px; font: 12px/1.35 Inter, Arial, sans-serif; color: var(--input-text, #ddd); }
.realrag-cards button { font: inherit; color: inherit; background: var(--comfy-input-bg, #222); cursor: pointer;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 5px; padding: 1px 8px; }
.realrag-cards button:hover:not(:disabled) { border-color: #8ab; }
.realrag-cards button:disabled { opacity: 0.4; cursor: default; }
.realrag-bar { display: flex; align-items: center; gap: 6px; flex-wrap: wrap; flex: none; }
.realrag-space { flex: 1; }
.realrag-cards button.realrag-changed { border-color: #f0b429; color: #f0b429; }
.realrag-grid { flex: 1 1 auto; min-height: 0; overflow-y: auto; align-content: start; display: grid; grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: 8px; }
.realrag-card { position: relative; min-width: 0; display: flex; flex-direction: column; border-radius: 6px; padding: 4px;
  border: 2px solid transparent; background: var(--comfy-menu-bg, #353535); }
.realrag-card > div { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.realrag-cards button.realrag-open { position: relative; display: block; padding: 0; border: 0; width: 100%; aspect-ratio: 1;
  overflow: hidden; background: #151515; }
.realrag-open img { width: 100%; height: 100%; object-fit: contain; display: block; }
.realrag-rank { position: absolute; left: 4px; top: 4px; min-width: 16px; text-align: center; border-radius: 4px;
  background: #000a; color: #fff; padding: 0 3px; }
.realrag-choices { display: flex; flex-wrap: wrap; gap: 3px; margin: 4px 0 2px; flex: none; }
.realrag-cards .realrag-choices button { flex: 1; padding: 0; font-size: 11px; }
.realrag-choices button.realrag-mask[aria-pressed="true"] { background: #2d5f8a; color: #fff; }
.realrag-pinned { border-color: #6fbf73; }
.realrag-pinned .realrag-pin[aria-pressed="true"] { background: #2f6b34; color: #fff; }
.realrag-banned { border-color: #b4534b; }
.realrag-banned .realrag-open, .realrag-banned > div:not(.realrag-choices) { opacity: 0.35; }
.realrag-banned .realrag-ban[aria-pressed="true"] { background: #8c2f28; color: #fff; }
.realrag-score { font-size: 11px; }
.realrag-name { font-weight: 600; }
.realrag-doubt, .realrag-note { color: #f0b429; }
.realrag-credit { opacity: 0.65; font-size: 11px; }
.realrag-note, .realrag-hint { margin: 0; flex: none; white-space: pre-line; }
.realrag-hint { opacity: 0.7; }
dialog.realrag-large { border: 1px solid #555; border-radius: 8px; background: #1b1b1b; color: #ddd; padding: 12px;
  max-width: 94vw; max-height: 94vh; outline: none; font: 14px/1.5 Inter, Arial, sans-serif; margin: auto; }
dialog.realrag-large::backdrop { background: #000b; }
dialog.realrag-large img { display: block; margin: 0 auto 8px; min-width: min(60vw, 70vh); max-width: 90vw; height: 72vh;
  object-fit: contain; background: #111; }
dialog.realrag-drawing canvas { display: block; margin: 8px auto; cursor: crosshair; touch-action: none; border: 1px solid #555;
  width: min(448px, 60vh); height: min(448px, 60vh); }
dialog.realrag-drawing div { max-width: 460px; }
dialog.realrag-large .realrag-id { opacity: 0.6; font-size: 12px; user-select: text; }
dialog.realrag-large menu { display: flex; gap: 8px; justify-content: center; margin: 8px 0 0; padding: 0; }
dialog.realrag-large button { font: inherit; color: inherit; background: #2b2b2b; border: 1px solid #555; border-radius: 5px;
  padding: 2px 14px; cursor: pointer; }
`;

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {string} style  class names @param {string} content  text, never read as markup
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, style, content = "") {
  const made = document.createElement(tag);
  if (style) made.className = style;
  if (content) made.textContent = content;
  return made;
}

/** The element, with the style sheet of cards in the page. @template {HTMLElement} T @param {T} made @returns {T} */
export function styled(made) {
  if (!document.getElementById("realrag-style")) {
    const sheet = element("style", "", STYLE);
    sheet.id = "realrag-style";
    document.head.append(sheet);
  }
  return made;
}

/** @type {Map<string, import("./words.js").Key>} */
const FOUND = new Map([["by name", "cards.by_name"], ["by caption", "cards.by_caption"], ["by look", "cards.by_look"],
  ["pinned", "cards.by_pin"]]);

/** How the photo was found, in the page's language, and the score of what look found: that of a photo that was found by its
 * name says nothing of why it is here. @param {Photo} photo @returns {string} */
export function foundBy({ found, score }) {
  const key = FOUND.get(found);
  const how = key ? text(key) : found;
  return found === "by look" ? `${how} · ${score.toFixed(3)}` : how;
}

/** One photo over the page; arrow keys show the others, Escape or a click beside it closes.
 * @param {Photo[]} photos @param {number} at */
export function openLarge(photos, at) {
  const dialog = element("dialog", "realrag-large");
  dialog.tabIndex = -1;
  const draw = () => {
    const photo = photos[at];
    const picture = element("img", "");
    picture.src = api.apiURL(`/view?${new URLSearchParams(photo.photo)}`);
    picture.alt = photo.name;
    const place = text("cards.place", { rank: photo.rank, count: photos.length });
    const turns = element("menu", "");
    for (const [sign, step] of /** @type {[string, number][]} */ ([["‹", -1], [text("cards.close"), 0], ["›", 1]])) {
      const button = element("button", "", sign);
      button.addEventListener("click", () => turn(step));
      turns.append(button);
    }
    dialog.replaceChildren(
      picture,
      element("div", "realrag-name", [place, foundBy(photo), photo.name].join(" · ")),
      element("div", "", photo.caption === photo.name ? "" : photo.caption),
      element("div", "", photo.credit),
      element("div", "realrag-id", text("cards.id", { id: photo.id })),
      turns,
    );
    dialog.focus(); // the button that had it is gone, and keys must not reach the page
  };
  /** @param {number} step */
  const turn = (step) => {
    if (!step) return dialog.close();
    at = (at + step + photos.length) % photos.length;
    draw();
  };
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the page's own shortcuts delete nodes
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight") turn(1);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  draw();
}
