// Builds three small pages, rendered on the server and hydrated in the browser by React, Vue and Svelte.
//
//   node build.mjs OUTDIR          (in a folder whose node_modules has them, and esbuild)

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'
import { compile } from 'svelte/compiler'

const [out] = process.argv.slice(2)
const here = dirname(fileURLToPath(import.meta.url))
const work = join(process.cwd(), 'hydrate')
mkdirSync(work, { recursive: true })

const page = (name, markup) => `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>${name}</title><link rel="stylesheet" href="style.css"></head>
<body>
<div id="app">${markup}</div>
<script type="module" src="client.js"></script>
</body>
</html>
`

async function bundle (entry, platform, outfile) {
  await build({
    entryPoints: [entry], outfile, bundle: true, format: 'esm', platform, sourcemap: platform === 'browser',
    nodePaths: [join(process.cwd(), 'node_modules')],
    conditions: platform === 'browser' ? ['browser'] : ['node'],
    define: { 'process.env.NODE_ENV': '"development"', __VUE_OPTIONS_API__: 'true', __VUE_PROD_DEVTOOLS__: 'false', __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: 'true' },
    banner: platform === 'node' ? { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" } : {},
    logLevel: 'error'
  })
}

for (const name of ['react', 'vue', 'svelte']) {
  const folder = join(out, name)
  mkdirSync(folder, { recursive: true })
  if (name === 'svelte') {
    const source = readFileSync(join(here, 'Counter.svelte'), 'utf8')
    for (const generate of ['client', 'server']) {
      writeFileSync(join(work, `Counter.${generate}.js`), compile(source, { generate, name: 'Counter', css: 'injected' }).js.code)
    }
  }
  for (const side of ['client', 'server']) writeFileSync(join(work, `${name}.${side}.js`), readFileSync(join(here, `${name}.${side}.js`)))
  writeFileSync(join(work, `${name}.app.js`), name === 'svelte' ? '' : readFileSync(join(here, `${name}.app.js`)))
  const server = join(work, `${name}.server.mjs`)
  await bundle(join(work, `${name}.server.js`), 'node', server)
  await bundle(join(work, `${name}.client.js`), 'browser', join(folder, 'client.js'))
  const { markup } = await import(pathToFileURL(server))
  writeFileSync(join(folder, 'index.html'), page(name, await markup()))
  writeFileSync(join(folder, 'style.css'), readFileSync(join(here, 'style.css')))
}
