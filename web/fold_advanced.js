// The classic renderer shows all advanced inputs, and keeps the room of a text box whose text comes over a wire. Here our nodes
// fold both, as Nodes 2.0 does by itself.
import { app } from "../../scripts/app.js";
import { text } from "./words.js";

const OURS = "RealRAG_";
const BUTTON = "Show advanced inputs"; // its name; its label is in the page's language
const ROW = 20; // pixels

/** @typedef {any} GraphNode  a node of the page, which gives extensions no types of it */
/** @typedef {any} Widget */

const classic = () => !LiteGraph.vueNodesMode;

/** @param {GraphNode} node @returns {Widget[]} */
const advanced = (node) => (node.widgets ?? []).filter((/** @type {Widget} */ widget) => widget.options?.advanced);

/** Is something connected to the widget's own socket? Then it stays in sight. @param {GraphNode} node @param {Widget} widget */
const linked = (node, widget) =>
  node.inputs?.some((/** @type {any} */ input) => input.widget?.name === widget.name && input.link != null);

/** Hide or show the advanced widgets as the node is set; elsewhere than in the classic renderer, hide none. @param {GraphNode} node */
function fold(node) {
  for (const widget of advanced(node)) widget.hidden = classic() && !node.showAdvanced && !linked(node, widget);
  const button = node.widgets?.find((/** @type {Widget} */ { name }) => name === BUTTON);
  if (button) button.label = text(node.showAdvanced ? "fold.hide" : "fold.show");
}

/** A text box shrinks to a row while its text comes over a wire. @param {GraphNode} node */
function shrinkLinkedTexts(node) {
  for (const widget of node.widgets ?? []) {
    if (!widget.element || !widget.options) continue;
    for (const name of ["getMinHeight", "getMaxHeight"]) {
      const usual = widget.options[name];
      widget.options[name] = () => (linked(node, widget) ? ROW : usual?.());
    }
  }
}

/** Open or close the node, which grows or shrinks by what appears or goes. @param {GraphNode} node */
function toggle(node) {
  const before = node.computeSize()[1];
  node.showAdvanced = !node.showAdvanced;
  fold(node);
  const after = node.computeSize()[1];
  node.setSize([node.size[0], Math.max(after, node.size[1] + after - before)]);
  node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: "RealRAG.FoldAdvanced",
  setup() {
    const ours = (/** @type {GraphNode} */ { comfyClass }) => comfyClass?.startsWith(OURS);
    const every = () => app.graph?.nodes?.filter(ours).forEach(fold);
    app.ui?.settings?.addEventListener?.("Comfy.VueNodes.Enabled.change", () => setTimeout(every));
  },
  /** @param {GraphNode} node */
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith(OURS)) return;
    shrinkLinkedTexts(node);
    if (!advanced(node).length) return;
    // canvasOnly: not in Nodes 2.0. Not saved: a graph's widget values stay those of the inputs.
    const button = node.addWidget("button", BUTTON, null, () => toggle(node), { canvasOnly: true, serialize: false });
    button.serialize = false;
    fold(node);
    if (classic()) node.setSize(node.computeSize());
  },
  /** @param {GraphNode} node */
  loadedGraphNode(node) {
    if (node.comfyClass?.startsWith(OURS)) fold(node);
  },
});
