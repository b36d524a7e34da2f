// The words of our own buttons and messages, in the page's language. A language or a text that is not in web/words/ is in
// English; so is traditional Chinese, as the names of the nodes are.
import { app } from "../../scripts/app.js";
import de from "./words/de.js";
import en from "./words/en.js";
import es from "./words/es.js";
import fr from "./words/fr.js";
import ja from "./words/ja.js";
import zh from "./words/zh.js";

/** @typedef {keyof typeof en} Key */

/** @type {Map<string, Partial<Record<Key, string>>>} */
const TABLES = new Map(Object.entries({ de, en, es, fr, ja, zh }));

/** @param {Key} key @param {Record<string, string | number>} values  what stands for {name} in the text @returns {string} */
export function text(key, values = {}) {
  const table = TABLES.get(app.extensionManager?.setting?.get("Comfy.Locale"));
  return (table?.[key] || en[key]).replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}
