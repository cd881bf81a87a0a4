// Loads pages in Chromium and says what each became, as JSON lines on stdout: the DOM after load, the console, the URLs
// asked for, and a digest of the full-page picture. `tests/browser/run` starts it, once for the origin itself and once for
// Tidegate in front of it, and compares.
//
//   node compare.mjs PORT OUTDIR URL...

import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { chromium } from 'playwright-core'

const [port, folder, ...urls] = process.argv.slice(2)
// Longest wait for a page to load, and then for it to come to rest.
const LOAD = 30_000
const REST = 5_000

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: [
    // The same name for both, so that URLs are equal; and nothing but it is there.
    `--host-resolver-rules=MAP site.test:443 127.0.0.1:${port}, MAP * ~NOTFOUND`,
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--force-color-profile=srgb', '--font-render-hinting=none'
  ]
})

// What differs from load to load by itself: the time, chance, and what moves.
const steady = () => {
  let seed = 1
  Math.random = () => (seed = (seed * 16807) % 2147483647) / 2147483647
  const Real = Date
  const now = Real.UTC(2026, 0, 1)
  globalThis.Date = class extends Real {
    constructor (...args) { args.length === 0 ? super(now) : super(...args) }
    static now () { return now }
  }
}

async function look (url) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, reducedMotion: 'reduce', viewport: { width: 1200, height: 800 }
  })
  await context.addInitScript(steady)
  const page = await context.newPage()
  const [said, asked] = [[], new Set()]
  page.on('console', message => said.push(`${message.type()}: ${message.text()}`))
  page.on('pageerror', error => said.push(`uncaught: ${error}`))
  page.on('request', request => asked.add(`${request.method()} ${request.url()}`))
  try {
    await page.goto(url, { waitUntil: 'load', timeout: LOAD })
    // A page that never rests is compared as it is by then.
    await page.waitForLoadState('networkidle', { timeout: REST }).catch(() => {})
    for (const button of await page.$$('[data-press]')) await button.click()
    await page.evaluate(() => document.fonts.ready.then(() => undefined))
    const dom = await page.evaluate(() => document.documentElement.outerHTML)
    const picture = await page.screenshot({ fullPage: true, animations: 'disabled', caret: 'hide' })
    const name = createHash('sha256').update(picture).digest('hex').slice(0, 16)
    writeFileSync(`${folder}/${name}.png`, picture)
    return { url, dom, console: said.sort(), urls: [...asked].sort(), picture: name }
  } catch (error) {
    return { url, failed: String(error) }
  } finally {
    await context.close()
  }
}

for (const url of urls) console.log(JSON.stringify(await look(url)))
await browser.close()
