// Build Reference Library: a folder, pictures or a .zip dropped on the node go to ComfyUI/input and are chosen there; a
// library that was made is at once in the lists of the other nodes.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { text } from "./words.js";

const NODE = "RealRAG_BuildLibrary";
const KNOWN = /\.(jpe?g|jpe|jfif|png|webp|avif|tiff?|gif|bmp|heic|heif|txt|caption|json|jsonl|csv|tsv|xmp|parquet)$/i;

/** @typedef {any} GraphNode  a node of the page, which gives extensions no types of it */
/** @typedef {{file: File, folder: string}} Dropped  a file, and the folder below the dropped one in which it lay */

/** @param {FileSystemEntry} entry @param {string} folder @returns {Promise<Dropped[]>} */
async function filesOf(entry, folder = "") {
  if (entry.isFile) {
    const single = /** @type {FileSystemFileEntry} */ (entry);
    return [{ file: await new Promise((done, fail) => single.file(done, fail)), folder }];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  /** @type {Dropped[]} */
  const found = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((done, fail) => reader.readEntries(done, fail)); // at most 100 at a time
    if (!some.length) return found;
    for (const inner of some) found.push(...(await filesOf(inner, folder ? `${folder}/${entry.name}` : entry.name)));
  }
}

/** What a drop holds; entries must be taken before anything is awaited. @param {DataTransfer} data @returns {Promise<Dropped[]>} */
async function dropped(data) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry != null);
  const files = [...data.files].map((file) => ({ file, folder: "" }));
  if (!entries.length) return files;
  return (await Promise.all(entries.map((entry) => filesOf(entry)))).flat();
}

/** @param {Dropped} item @param {string} folder @returns {Promise<string>} the name it got: another file may have had its own */
async function upload({ file }, folder) {
  const body = new FormData();
  body.append("image", file);
  body.append("subfolder", folder);
  body.append("type", "input");
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (answer.status !== 200) throw new Error(`${file.name}: ${answer.status} ${answer.statusText}`);
  return (await answer.json()).name;
}

/** @param {GraphNode} node @param {"success" | "error" | "info"} severity @param {string} detail */
function tell(node, severity, detail) {
  app.extensionManager?.toast?.add({ severity, summary: node.title, detail, life: 6000 });
}

/** Bring dropped photos to the input folder and choose them. @param {GraphNode} node @param {DataTransfer} data */
async function take(node, data) {
  const widget = (/** @type {string} */ name) => node.widgets.find((/** @type {any} */ each) => each.name === name);
  const all = await dropped(data);
  const zip = all.find(({ file }) => /\.zip$/i.test(file.name));
  const items = zip ? [zip] : all.filter(({ file }) => KNOWN.test(file.name));
  if (!items.length) return tell(node, "error", text("library.not_photos"));
  const single = new Set(items.map(({ folder }) => folder.split("/")[0]));
  // A folder keeps its name; loose pictures go into one that is called like the library.
  const loose = single.has("") || single.size > 1;
  const root = String(widget("name").value).trim().replace(/[^\p{L}\p{N} _-]+/gu, " ").trim() || "my photos";
  try {
    let done = 0;
    let name = "";
    for (const item of items) {
      const folder = zip ? "" : loose ? [root, item.folder].filter(Boolean).join("/") : item.folder;
      name = await upload(item, folder);
      if (++done % 100 === 0) tell(node, "info", text("library.on_the_way", { done, count: items.length }));
    }
    await app.refreshComboInNodes();
    widget("photos").value = zip ? name : loose ? root : [...single][0];
    tell(node, "success", text("library.arrived", { count: items.length }));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    tell(node, "error", text("library.failed", { reason }));
  }
  node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: "RealRAG.BuildLibrary",
  /** @param {any} nodeType @param {{name: string}} nodeData */
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return;
    const { onExecuted } = nodeType.prototype;
    /** @param {DragEvent} event */
    nodeType.prototype.onDragOver = function (event) {
      return [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file");
    };
    /** @param {DragEvent} event */
    nodeType.prototype.onDragDrop = function (event) {
      if (!event.dataTransfer?.items.length) return false;
      return take(this, event.dataTransfer).then(() => true);
    };
    /** @param {any[]} values */
    nodeType.prototype.onExecuted = function (...values) {
      onExecuted?.apply(this, values);
      app.refreshComboInNodes();
    };
  },
});
