// Writes what the lifecycle reads of a build: the processes of package.json, and what is in the layers as CycloneDX.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const [layers, nodeVersion] = process.argv.slice(2);
const read = (name) => JSON.parse(fs.readFileSync(name, "utf8"));
const write = (name, text) => fs.writeFileSync(path.join(layers, name), text);
const bill = (components) =>
  JSON.stringify({ bomFormat: "CycloneDX", specVersion: "1.4", version: 1, components }) + "\n";

// A key is a path, such as node_modules/a/node_modules/@scope/b; the empty one is the application itself.
function component([key, entry]) {
  const name = entry.name ?? key.slice(key.lastIndexOf("node_modules/") + "node_modules/".length);
  const purl = `pkg:npm/${name.replace("@", "%40")}@${entry.version}`;
  const found = { type: "library", "bom-ref": `${purl}#${key}`, name, version: entry.version, purl };
  if (entry.license) found.licenses = [{ expression: entry.license }];
  return found;
}

const manifest = read("package.json");
const start = manifest.scripts?.start ?? (fs.existsSync("server.js") ? "node server.js" : undefined);
if (start === undefined) {
  console.error('package.json names no way to start: add "scripts": { "start": "node FILE.js" }');
  process.exit(1);
}
// JSON's strings are strings of TOML too, but for DEL, which may not stand in one as it is.
const quoted = JSON.stringify(start).replaceAll("\x7f", "\\u007f");
write("launch.toml", `[[processes]]\ntype = "web"\ncommand = ["bash", "-c"]\nargs = [${quoted}]\ndefault = true\n`);

const locked = Object.entries(read("package-lock.json").packages ?? {});
// Not what is for development, or for other platforms.
const installed = locked.filter(([key]) => key !== "" && fs.existsSync(path.join(layers, "modules", key)));
write("modules.sbom.cdx.json", bill(installed.map(component)));
const node = { type: "application", name: "node", version: nodeVersion, purl: `pkg:generic/node@${nodeVersion}` };
write("node.sbom.cdx.json", bill([node]));
