// What ComfyUI's page gives extensions, without its types: it publishes none for scripts that are not compiled.
declare module "*/scripts/app.js" { export const app: any; }
declare module "*/scripts/api.js" { export const api: any; }
declare var LiteGraph: any;
