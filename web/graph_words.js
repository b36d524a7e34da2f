// The example graphs as they ship, in the page's language: their notes, and the titles of nodes and groups. What an artist has
// changed or saved, and every prompt and value, stays as it is.
import { app } from "../../scripts/app.js";

const LANGUAGES = new Set(["de", "es", "fr", "ja", "zh"]); // as web/graph_words/ has them
const NOTE = "MarkdownNote";

/** @typedef {{ notes: Record<string, [string, string]>, titles: Record<string, string>, groups: Record<string, string> }} Words */
/** @typedef {any} GraphData  a workflow as a file has it */

/** A file, because the page would load a script in every language. @param {string} language @returns {Promise<Words | undefined>} */
async function words(language) {
  const answer = await fetch(new URL(`./graph_words/${language}.json`, import.meta.url), { cache: "no-cache" });
  return answer.ok ? answer.json() : undefined;
}

/** Has a page saved it? Then it says which page did, or names sockets in that page's language. @param {GraphData} graph */
const saved = (graph) =>
  graph.extra.frontendVersion ||
  graph.nodes.some((/** @type {any} */ node) =>
    [...(node.inputs ?? []), ...(node.outputs ?? [])].some((slot) => "localized_name" in slot),
  );

/** @param {GraphData} graph @param {Words} words */
function translate(graph, { notes, titles, groups }) {
  const note = Object.hasOwn(notes, graph.extra.info.name) && notes[graph.extra.info.name];
  if (!note) return;
  const [english, translated] = note;
  const noted = graph.nodes.filter((/** @type {any} */ node) => node.type === NOTE);
  const titled = graph.nodes.filter((/** @type {any} */ node) => node.title !== undefined);
  const known = (/** @type {any[]} */ each, /** @type {Record<string, string>} */ table) =>
    each.every(({ title }) => Object.hasOwn(table, title));
  const asItShips = noted.every((/** @type {any} */ node) => node.widgets_values?.[0] === english);
  if (!asItShips || !known(titled, titles) || !known(graph.groups ?? [], groups)) return;
  for (const node of noted) node.widgets_values[0] = translated;
  for (const node of titled) node.title = titles[node.title];
  for (const group of graph.groups ?? []) group.title = groups[group.title];
}

app.registerExtension({
  name: "RealRAG.GraphWords",
  /** The page is about to build this graph. @param {GraphData} graph */
  async beforeConfigureGraph(graph) {
    const language = app.extensionManager?.setting?.get("Comfy.Locale");
    if (!LANGUAGES.has(language) || !graph?.extra?.info?.name || !Array.isArray(graph.nodes) || saved(graph)) return;
    const found = await words(language);
    if (found) translate(graph, found);
  },
});
