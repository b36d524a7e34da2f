// Retrieve Real References: the photos as cards to look at, pin, ban, mask and page through. What is chosen stands in the
// node's own inputs `pinned`, `exclude_ids`, `page` and `masks`, so a saved workflow holds it. Texts of a library reach the page as text only.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { drawMask, masksIn, masksText } from "./mask_drawing.js";
import { element, foundBy, openLarge, styled } from "./photo_cards.js";
import { text } from "./words.js";

const NODE = "RealRAG_RetrieveReferences";
const TEXT_BOXES = ["prompt", "look_for"];
/** @type {[string, import("./words.js").Key, import("./words.js").Key][]} input, how many it holds, what clearing it means */
const CHOICES = [
  ["pinned", "cards.pinned", "cards.pinned_title"],
  ["exclude_ids", "cards.banned", "cards.banned_title"],
  ["masks", "cards.masked", "cards.masked_title"],
];

/** @typedef {import("./photo_cards.js").Photo} Photo */
/** @typedef {any} GraphNode  a node of the page, which gives extensions no types of it */
/** @typedef {any} Widget */

/** @param {GraphNode} node @param {string} name @returns {Widget} */
const widgetOf = (node, name) => node.widgets?.find((/** @type {Widget} */ each) => each.name === name);

/** Whether another node gives this input its value. @param {GraphNode} node @param {string} name */
const isLinked = (node, name) =>
  node.inputs?.some((/** @type {any} */ slot) => slot.widget?.name === name && slot.link != null) ?? false;

/** @param {GraphNode} node @param {string} name @returns {string[]} the ids in a text widget */
function idsIn(node, name) {
  const ids = String(widgetOf(node, name)?.value ?? "");
  return [...new Set(ids.split(/[,\n]/).map((id) => id.trim()).filter(Boolean))];
}

/** @param {GraphNode} node @param {string} name @param {string | number} value */
function set(node, name, value) {
  const widget = widgetOf(node, name);
  widget.value = value;
  widget.callback?.(value);
  node.graph?.setDirtyCanvas?.(true, true);
}

/** The id under which a run knows this node: ids of the subgraphs around it come first.
 * @param {GraphNode} node @param {any} graph @returns {string | null} */
function runId(node, graph = app.rootGraph ?? app.graph) {
  if (graph.nodes.includes(node)) return String(node.id);
  for (const outer of graph.nodes) {
    const inner = outer.subgraph && runId(node, outer.subgraph);
    if (inner) return `${outer.id}:${inner}`;
  }
  return null;
}

class Cards {
  /** @param {GraphNode} node */
  constructor(node) {
    this.node = node;
    /** @type {Photo[]} */
    this.photos = [];
    this.note = "";
    this.shown = ""; // what was chosen when the photos were looked for
    this.box = styled(element("div", "realrag-cards"));
    this.grid = element("div", "realrag-grid");
    this.box.addEventListener("wheel", (event) => {
      if (this.grid.scrollHeight > this.grid.clientHeight && !event.ctrlKey) event.stopPropagation();
      else if (!LiteGraph.vueNodesMode) app.canvas.processMouseWheel(event); // the cards lie over the classic canvas
    });
    const options = { serialize: false, hideOnZoom: false, getMinHeight: () => 250 };
    this.widget = node.addDOMWidget("realrag_cards", "realrag_cards", this.box, options);
    this.widget.serialize = false; // the inputs hold what was chosen
    this.draw();
  }

  /** @returns {string} */
  get chosen() {
    return JSON.stringify([idsIn(this.node, "pinned"), idsIn(this.node, "exclude_ids"), widgetOf(this.node, "page")?.value]);
  }

  /** @param {{realrag_photos?: Photo[], realrag_note?: string[]}} output of a run */
  show(output) {
    if (!output?.realrag_photos) return;
    this.photos = output.realrag_photos;
    this.note = output.realrag_note?.[0] ?? "";
    this.shown = this.chosen;
    this.draw();
  }

  /** Put the photo into one list, or out of it, and out of the other.
   * @param {Photo} photo @param {string} name @param {string} other */
  toggle(photo, name, other) {
    const ids = idsIn(this.node, name);
    const rest = ids.filter((id) => id !== photo.id);
    set(this.node, name, (rest.length < ids.length ? rest : [...ids, photo.id]).join(", "));
    if (rest.length === ids.length) set(this.node, other, idsIn(this.node, other).filter((id) => id !== photo.id).join(", "));
    this.draw();
  }

  /** @returns {Map<string, string>} photo id -> mask */
  get masks() {
    return masksIn(String(widgetOf(this.node, "masks")?.value ?? ""));
  }

  /** Draw where in the new picture this photo counts. @param {Photo} photo */
  mask(photo) {
    drawMask(photo.name, this.masks.get(photo.id) ?? "", (mask) => {
      const masks = this.masks;
      if (mask) masks.set(photo.id, mask);
      else masks.delete(photo.id);
      set(this.node, "masks", masksText(masks));
      this.draw();
    });
  }

  /** Run this node alone, with what it needs, to see the photos. */
  look() {
    const id = runId(this.node);
    if (id) app.queuePrompt(0, 1, [id]);
  }

  /** @param {number} step */
  turn(step) {
    set(this.node, "page", Math.min(100, Math.max(1, Number(widgetOf(this.node, "page").value) + step)));
    this.draw();
    this.look();
  }

  draw() {
    const { scrollTop } = this.grid;
    this.grid = element("div", "realrag-grid");
    this.grid.append(...this.photos.map((photo) => this.card(photo)));
    const hint = this.photos.length ? "" : text("cards.empty");
    const words = element("p", this.note ? "realrag-note" : "realrag-hint", this.note || hint);
    this.box.replaceChildren(this.bar(), ...(words.textContent ? [words] : []), this.grid);
    this.grid.scrollTop = scrollTop; // a press on a button leaves the cards where they are
    this.node.graph?.setDirtyCanvas?.(true, true);
  }

  bar() {
    const page = Number(widgetOf(this.node, "page")?.value ?? 1);
    const fixed = isLinked(this.node, "page");
    const look = this.button(text("cards.look"), text("cards.look_title"), () => this.look());
    look.classList.toggle("realrag-changed", this.photos.length > 0 && this.shown !== this.chosen);
    const bar = element("div", "realrag-bar");
    bar.append(
      look,
      this.button("‹", text("cards.previous"), () => this.turn(-1), fixed || page <= 1),
      element("span", "", text("cards.page", { page })),
      this.button("›", text("cards.next"), () => this.turn(1), fixed || page >= 100),
      element("span", "realrag-space"),
    );
    for (const [name, words, title] of CHOICES) {
      const count = idsIn(this.node, name).length;
      if (count) {
        const clear = () => (set(this.node, name, ""), this.draw());
        bar.append(this.button(`${text(words, { count })} ✕`, text(title), clear, isLinked(this.node, name)));
      }
    }
    return bar;
  }

  /** @param {Photo} photo */
  card(photo) {
    const pinned = idsIn(this.node, "pinned").includes(photo.id);
    const banned = idsIn(this.node, "exclude_ids").includes(photo.id);
    const card = element("div", "realrag-card");
    card.classList.toggle("realrag-pinned", pinned);
    card.classList.toggle("realrag-banned", banned);
    card.dataset.id = photo.id;
    const picture = element("img", "");
    picture.src = api.apiURL(`/view?${new URLSearchParams(photo.photo)}`);
    picture.alt = photo.name;
    picture.draggable = false;
    const open = this.button("", text("cards.open"), () => openLarge(this.photos, photo.rank - 1));
    open.className = "realrag-open";
    open.setAttribute("aria-label", text("cards.open_which", { rank: photo.rank }));
    open.append(picture, element("span", "realrag-rank", String(photo.rank)));
    const pin = this.button(text("cards.pin"), text(pinned ? "cards.unpin_title" : "cards.pin_title"), () =>
      this.toggle(photo, "pinned", "exclude_ids"), isLinked(this.node, "pinned"));
    const ban = this.button(text("cards.ban"), text(banned ? "cards.unban_title" : "cards.ban_title"), () =>
      this.toggle(photo, "exclude_ids", "pinned"), isLinked(this.node, "exclude_ids"));
    const masked = this.masks.has(photo.id);
    const mask = this.button(text("cards.mask"), text(masked ? "cards.redraw_title" : "cards.mask_title"), () =>
      this.mask(photo), isLinked(this.node, "masks"));
    const choices = element("div", "realrag-choices");
    for (const [button, name, on] of /** @type {[HTMLButtonElement, string, boolean][]} */ (
      [[pin, "pin", pinned], [ban, "ban", banned], [mask, "mask", masked]])) {
      button.classList.add(`realrag-${name}`);
      button.setAttribute("aria-pressed", String(on));
      choices.append(button);
    }
    const score = element("div", "realrag-score", foundBy(photo));
    if (photo.doubtful) score.append(element("span", "realrag-doubt", ` · ${text("cards.doubtful")}`));
    const lines = [score, element("div", "realrag-name", photo.name)];
    if (photo.object) lines.push(element("div", "realrag-for", text("cards.for", { object: photo.object })));
    lines.push(element("div", "realrag-credit", [photo.licensed === false ? "" : photo.license, photo.author].filter(Boolean).join(" · ")));
    card.title = `${photo.caption || photo.name}\n${photo.credit}`;
    card.append(open, choices, ...lines);
    return card;
  }

  /** @param {string} label @param {string} title @param {() => void} press @param {boolean} off */
  button(label, title, press, off = false) {
    const button = element("button", "", label);
    button.type = "button";
    button.title = off ? text("cards.linked", { title }) : title;
    button.disabled = off;
    button.addEventListener("click", press);
    return button;
  }
}

/** In place of the classic renderer's own gallery of the same photos: the names of text boxes that other nodes fill, which
 * it leaves blank. @param {GraphNode} node */
function nameLinkedBoxes(node) {
  /** @param {CanvasRenderingContext2D} context */
  node.onDrawBackground = function (context) {
    if (this.flags.collapsed) return;
    context.save();
    context.fillStyle = LiteGraph.NODE_TEXT_COLOR;
    context.font = `${LiteGraph.NODE_SUBTEXT_SIZE ?? 12}px ${LiteGraph.NODE_FONT ?? "Arial"}`;
    for (const name of TEXT_BOXES) {
      const widget = isLinked(this, name) && widgetOf(this, name);
      if (widget) context.fillText(widget.label || name, 20, widget.y + 14);
    }
    context.restore();
  };
}

app.registerExtension({
  name: "RealRAG.ChoosePhotos",
  /** @param {GraphNode} node */
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !node.addDOMWidget) return;
    nameLinkedBoxes(node);
    const cards = (node.realragCards = new Cards(node));
    node.hideOutputImages = true; // the gallery of the same photos that Nodes 2.0 would show
    const { onExecuted, onConnectionsChange } = node;
    /** @param {any} output */
    node.onExecuted = function (output) {
      onExecuted?.call(this, output);
      cards.show(output);
    };
    /** @param {any[]} values */
    node.onConnectionsChange = function (...values) {
      cards.draw();
      return onConnectionsChange?.apply(this, values);
    };
  },
  /** @param {GraphNode} node */
  loadedGraphNode(node) {
    if (!node.realragCards) return;
    node.realragCards.draw();
    node.realragCards.show(app.nodeOutputs?.[String(node.id)]); // the page keeps them while one changes between tabs
  },
});
