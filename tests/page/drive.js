// drive.js URL TOKEN ADDRESS - opens the operators' page in jsdom and uses it as a person would.
// One line `ok - what` or `not ok - what` each; tests/system/test_page.py starts it, with messages
// deferred at dead.test in the queue, one of them to ADDRESS.
'use strict'
const path = require('path')
const { JSDOM, VirtualConsole } = require(
  path.join(__dirname, '../../build/npm-page/node_modules/jsdom'))

const [url, token, address] = process.argv.slice(2)
const LIMIT_MS = 20000

async function until(what, probe) {
  const end = Date.now() + LIMIT_MS
  for (;;) {
    const got = probe()
    if (got) {
      console.log(`ok - page: ${what}`)
      return got
    }
    if (Date.now() > end) {
      console.log(`not ok - page: ${what}`)
      throw new Error(what)
    }
    await new Promise(go => setTimeout(go, 20))
  }
}

async function main() {
  const talk = new VirtualConsole()
  talk.on('jsdomError', error => console.log(`not ok - page: ${error.detail || error.message}`))
  const dom = await JSDOM.fromURL(url, { runScripts: 'dangerously', resources: 'usable',
    virtualConsole: talk, beforeParse(window) {
      window.fetch = (to, options) => fetch(new URL(to, url), options)
      window.confirm = question => { asked.push(question); return true }
    } })
  const { window } = dom
  const asked = []
  const all = query => [...window.document.querySelectorAll(query)]
  const one = query => all(query)[0]
  const text = query => all(query).map(found => found.textContent).join(' | ')
  const rows = table => all(`#${table} tr`).slice(1)
    .map(row => [...row.children].map(cell => cell.textContent))
  const submit = form => one(form).dispatchEvent(
    new window.Event('submit', { bubbles: true, cancelable: true }))
  const go = to => { window.location.hash = to }

  await until('without a token it says what is missing',
    () => /token/.test(text('#problem')) && !one('#problem').hidden)
  one('#token').value = token
  submit('#token-form')
  await until('the token opens it, and is kept for this window only',
    () => one('#problem').hidden && window.sessionStorage.getItem('token') === token)
  await until('the queue is listed', () => rows('queue-table').length >= 3)
  await until('with sender, recipient and what the next hop said', () =>
    rows('queue-table').every(row => row[3].includes('@') && row[4].includes('@dead.test') &&
      /refused/.test(row.at(-1))))
  await until('a subject with markup is text', () =>
    rows('queue-table').some(row => row[5].includes('<img')) && !one('#queue-table img'))
  await until('the state stands above', () => /running.* deferred/.test(text('#summary')))

  one('#queue-form input[name=filter]').value = `recipient=${address}`
  submit('#queue-form')
  await until('a filter leaves one', () => rows('queue-table').length === 1)
  one('#queue-table th input').click()
  one('button[data-change=hold]').click()
  await until('hold', () => rows('queue-table')[0]?.[2] === 'held')
  one('#queue-table td input').click()
  one('button[data-change=release]').click()
  await until('release', () => /deferred|queued|active/.test(rows('queue-table')[0]?.[2]))
  one('#queue-table td input').click()
  one('button[data-change=remove]').click()
  await until('remove, after a question', () =>
    rows('queue-table')[0]?.[0] === 'no message meets this' && asked.length === 1)
  one('#queue-form input[name=filter]').value = 'nonsense'
  submit('#queue-form')
  await until('a wrong filter is explained', () => /nonsense|field/.test(text('#problem')))

  go(`#tracking?recipient=${address}`)
  await until('tracking shows each step', () => {
    const events = rows('tracking-table').map(row => row[2])
    return ['accepted', 'deferred', 'operator remove'].every(event => events.includes(event))
  })
  one('#tracking-form input[name=recipient]').value = 'nobody*'
  submit('#tracking-form')
  await until('nothing found is said', () => /no message/.test(text('#tracking-table')))

  go('#sites')
  await until('the dead next hop is down', () =>
    rows('sites-table').some(row => row.includes('down') && /refused/.test(row.at(-1))))
  go('#route')
  await until('receive connectors can be chosen', () =>
    all('#route-form option').some(option => option.value === 'relay'))
  one('#route-form input[name=address]').value = address
  submit('#route-form')
  await until('a route is explained', () => /: dead, cost 5/.test(text('#route-answer')))

  go('#connectors')
  await until('connectors are listed', () =>
    rows('send-table').length === 2 && rows('receive-table').length === 3)
  const state = name => rows('send-table').find(row => row[0] === name)[1]
  const press = (name, what) => all('#send-table tr').find(row =>
    row.firstChild.textContent === name && row.querySelector('button'))
    .querySelectorAll('button').forEach(found => found.textContent === what && found.click())
  press('dead', 'suspend')
  await until('a connector is suspended', () => state('dead') === 'suspended')
  press('dead', 'resume')
  await until('and resumed', () => state('dead') === 'enabled')
  window.close()
}

main().catch(error => {
  console.log(`# ${error.stack}`)
  process.exit(1)
})
