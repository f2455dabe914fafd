// Builds the two bundles: what reports and notebooks hold, and the explorer's page. Their first line holds a hash of everything that it is made from, which
// tests/views/test_bundle.py computes again without Node.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const made = ["build.mjs", "package-lock.json", "tsconfig.json"];
const sources = readdirSync(join(here, "src"), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
  .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(here.length + 1).replaceAll("\\", "/"));

const hash = createHash("sha256");
for (const path of [...made, ...sources].sort()) {
  hash.update(`${path}\n`).update(readFileSync(join(here, path), "utf8").replaceAll("\r\n", "\n"));
}

const built = `// Built from web/: ${hash.digest("hex")}`;
const bundles = { "main.ts": "views/bundle/cutaway.js", "explore/main.ts": "explore/bundle/explorer.js" };

for (const [entry, bundle] of Object.entries(bundles)) {
  await build({
    entryPoints: [join(here, "src", entry)],
    outfile: join(here, "../src/cutaway", bundle),
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    charset: "ascii",
    legalComments: "none",
    banner: { js: built },
  });
}
