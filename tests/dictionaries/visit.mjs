// Visits a page in Chromium as one visitor over several days: the profile stays, so do its HTTP cache and dictionaries.
// `tests/dictionaries/run` starts it and reads one JSON line for each command it gives on stdin:
//
//   {"url": …, "slow": true, "forget": true}    visit; slow: a phone's line; forget: as somebody who was never here
//
// An answer says for each file how it was coded, how many bytes came over the wire, and what its body hashes to.

import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'

const [folder, key, ...mapped] = process.argv.slice(2)
// 1.6 Mbit/s, 150 ms there and back, a processor of a quarter of the speed.
const LINE = { offline: false, downloadThroughput: 1.6e6 / 8, uploadThroughput: 750e3 / 8, latency: 150 }
const SLOWNESS = 4
// Longest wait for a page, and then for it to come to rest.
const LOAD = 60_000
const REST = 10_000

let profile
let context

async function open () {
  profile = mkdtempSync(`${folder}/profile-`)
  context = await chromium.launchPersistentContext(profile, {
    executablePath: '/usr/bin/chromium',
    viewport: { width: 1200, height: 800 },
    args: [
      `--host-resolver-rules=${mapped.map(pair => `MAP ${pair}`).join(', ')}, MAP * ~NOTFOUND`,
      // The test's own certificate is trusted by its key: with errors ignored, Chromium would use no cache.
      `--ignore-certificate-errors-spki-list=${key}`,
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'
    ]
  })
}

async function close () {
  await context.close()
  rmSync(profile, { recursive: true, force: true })
}

async function visit ({ url, slow }) {
  const page = await context.newPage()
  const client = await context.newCDPSession(page)
  await client.send('Network.enable')
  if (slow) {
    await client.send('Network.emulateNetworkConditions', LINE)
    await client.send('Emulation.setCPUThrottlingRate', { rate: SLOWNESS })
  }
  await page.addInitScript(() => {
    globalThis.paints = []
    new PerformanceObserver(list => globalThis.paints.push(...list.getEntries().map(entry => entry.startTime)))
      .observe({ type: 'largest-contentful-paint', buffered: true })
  })
  const files = new Map()
  const faults = []
  // Of the two events that speak of a request either may come first.
  const of = requestId => files.get(requestId) ?? files.set(requestId, { wire: 0 }).get(requestId)
  client.on('Network.requestWillBeSent', ({ requestId, request }) => { of(requestId).url = request.url })
  client.on('Network.requestWillBeSentExtraInfo', ({ requestId, headers }) => {
    const names = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
    of(requestId).offered = names['available-dictionary']
  })
  client.on('Network.responseReceived', ({ requestId, response }) => {
    const names = Object.fromEntries(Object.entries(response.headers).map(([name, value]) => [name.toLowerCase(), value]))
    Object.assign(of(requestId), {
      status: response.status, coding: names['content-encoding'], cached: response.fromDiskCache || response.fromPrefetchCache
    })
  })
  const ends = []
  client.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => {
    const file = of(requestId)
    file.wire = encodedDataLength
    ends.push(client.send('Network.getResponseBody', { requestId }).then(({ body, base64Encoded }) => {
      const bytes = Buffer.from(body, base64Encoded ? 'base64' : 'utf8')
      file.sha256 = createHash('sha256').update(bytes).digest('hex')
    }).catch(() => {}))
  })
  client.on('Network.loadingFailed', ({ requestId, errorText }) => {
    faults.push(`${files.get(requestId)?.url}: ${errorText}`)
  })
  const began = Date.now()
  try {
    await page.goto(url, { waitUntil: 'load', timeout: LOAD })
    const load = Date.now() - began
    // A page that never rests is judged as it is by then.
    await page.waitForLoadState('networkidle', { timeout: REST }).catch(() => {})
    // What is painted last may come a frame behind the last byte.
    await page.waitForTimeout(slow ? 1500 : 300)
    await Promise.all(ends)
    const lcp = await page.evaluate(() => Math.max(0, ...globalThis.paints))
    return { load, lcp: Math.round(lcp), files: [...files.values()], faults }
  } catch (error) {
    return { failed: String(error), files: [...files.values()], faults }
  } finally {
    await page.close()
  }
}

await open()
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  if (command.forget) {
    await close()
    await open()
  }
  console.log(JSON.stringify(await visit(command)))
}
await close()
