// Compares every NAME.small with NAME: scripts by their syntax trees (acorn), style sheets by their tokens (css-tree), JSON
// by value. Prints totals by kind, and fails when anything differs.
import { readFileSync, readdirSync, existsSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { gzipSync } from "node:zlib";
import * as acorn from "acorn";
import { tokenize, tokenTypes } from "css-tree";

const totals = {};
let failures = 0;

function files(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? files(path) : [path];
  });
}

// The tree without positions; `null` where the source does not parse as this kind.
function tree(source, sourceType) {
  try {
    const ast = acorn.parse(source, { ecmaVersion: "latest", sourceType, allowHashBang: true, allowReturnOutsideFunction: true });
    return JSON.stringify(ast, (key, value) => {
      if (key === "start" || key === "end") return undefined;
      return typeof value === "bigint" ? `${value}n` : value instanceof RegExp ? String(value) : value;
    });
  } catch {
    return null;
  }
}

function sameScript(before, after) {
  return ["script", "module"].every((kind) => tree(before, kind) === tree(after, kind));
}

// Words of a style sheet; where white space stands between two of them is part of them unless punctuation is beside it.
function words(source) {
  const found = [];
  tokenize(source, (type, start, end) => {
    if (type !== tokenTypes.Comment && type !== tokenTypes.WhiteSpace) found.push(source.slice(start, end));
  });
  return found;
}

const same = {
  js: sameScript,
  mjs: sameScript,
  css: (before, after) => isDeepStrictEqual(words(before), words(after)),
  json: (before, after) => isDeepStrictEqual(JSON.parse(before), JSON.parse(after)),
};

for (const path of files(process.argv[2])) {
  const kind = path.split(".").pop();
  if (!(kind in same)) continue;
  const total = (totals[kind] ??= { files: 0, refused: {}, before: 0, after: 0, gzipBefore: 0, gzipAfter: 0 });
  total.files += 1;
  if (existsSync(`${path}.refused`)) {
    const reason = readFileSync(`${path}.refused`, "utf8");
    total.refused[reason] = (total.refused[reason] ?? 0) + 1;
    continue;
  }
  const [before, after] = [path, `${path}.small`].map((name) => readFileSync(name, "utf8"));
  if (!same[kind](before, after)) {
    failures += 1;
    console.error(`DIFFERS ${path}`);
  }
  total.before += Buffer.byteLength(before);
  total.after += Buffer.byteLength(after);
  total.gzipBefore += gzipSync(before).length;
  total.gzipAfter += gzipSync(after).length;
}
console.log(JSON.stringify(totals, null, 1));
process.exit(failures ? 1 : 0);
