// The operators' page: what hikyakuctl does, from /api/v1. Everything that comes from the gateway
// is put into the document as text, never as markup: senders, subjects and replies are strangers'.
'use strict'

const REFRESH_MS = 5000
const byId = id => document.getElementById(id)

// ---- asking the gateway ----

let token = sessionStorage.getItem('token') || ''

async function ask(method, path, args = {}) {
  const query = new URLSearchParams()
  for (const [key, value] of Object.entries(args)) {
    if (value !== '' && value !== undefined) query.set(key, value)
  }
  const headers = token ? { Authorization: `Bearer ${token}` } : {}
  const answer = await fetch(`/api/v1/${path}?${query}`, { method, headers })
  const body = await answer.json()
  if (!answer.ok) throw new Error(body.error || answer.statusText)
  return body
}

function problem(text) {
  byId('problem').textContent = text
  byId('problem').hidden = !text
}

// Runs what a button or a form asks for; its failure is shown where it can be seen.
function doing(work) {
  return async event => {
    if (event) event.preventDefault()
    try {
      await work(event)
      problem('')
    } catch (error) {
      problem(error.message)
    }
  }
}

// ---- drawing ----

function element(name, text, className) {
  const made = document.createElement(name)
  if (text instanceof Node) made.append(text)
  else made.textContent = text ?? ''
  if (className) made.className = className
  return made
}

// columns: [title, row -> text or node, class or row -> class]
function draw(table, columns, rows, whenEmpty) {
  const head = element('tr')
  head.append(...columns.map(([title]) => element('th', title)))
  const lines = rows.map(row => {
    const line = element('tr', '', row.first ? 'first' : '')
    for (const [, value, style] of columns) {
      line.append(element('td', value(row), typeof style === 'function' ? style(row) : style))
    }
    return line
  })
  if (!rows.length) {
    const cell = element('td', whenEmpty)
    cell.colSpan = columns.length
    lines.push(element('tr', cell))
  }
  table.replaceChildren(head, ...lines)
}

function span(seconds) {
  for (const [unit, length] of [['d', 86400], ['h', 3600], ['min', 60]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`
  }
  return `${seconds} s`
}

function bytes(n) {
  for (const [unit, size] of [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]]) {
    if (n >= size) return `${(n / size).toFixed(1)} ${unit}`
  }
  return `${n} B`
}

function button(text, work, className) {
  const made = element('button', text, className)
  made.addEventListener('click', doing(work))
  return made
}

const states = { active: 'good', up: 'good', enabled: 'good', delivered: 'good', deferred: 'late',
  waiting: 'late', suspended: 'late', 'partly down': 'late', held: 'late', down: 'bad',
  unreachable: 'bad', poison: 'bad', disabled: 'bad', failed: 'bad', bounced: 'bad' }

// ---- the queue ----

const chosen = new Set()

function showChosen() {
  byId('chosen').textContent = chosen.size ? `${chosen.size} chosen` : 'nothing chosen'
  for (const one of byId('queue-actions').querySelectorAll('button')) one.disabled = !chosen.size
}

// The box in the table's head: all that are shown, or none.
function choiceOfAll(rows) {
  const box = document.createElement('input')
  box.type = 'checkbox'
  box.checked = rows.length > 0 && rows.every(row => chosen.has(row.qid))
  box.setAttribute('aria-label', 'choose all that are shown')
  box.addEventListener('change', () => {
    for (const row of rows) box.checked ? chosen.add(row.qid) : chosen.delete(row.qid)
    for (const one of byId('queue-table').querySelectorAll('td input')) one.checked = box.checked
    showChosen()
  })
  return box
}

function choice(row) {
  const box = document.createElement('input')
  box.type = 'checkbox'
  box.checked = chosen.has(row.qid)
  box.setAttribute('aria-label', `choose ${row.qid}`)
  box.addEventListener('change', () => {
    box.checked ? chosen.add(row.qid) : chosen.delete(row.qid)
    showChosen()
  })
  return box
}

function tracked(qid) {
  const link = element('a', qid)
  link.href = `#tracking?qid=${qid}`
  return link
}

function people(row) {
  const waiting = (row.recipients || []).filter(one => one.status === 'pending')
  const more = row.pending_count - waiting.length
  return waiting.map(one => one.address).join(', ') + (more > 0 ? ` and ${more} more` : '')
}

async function showQueue() {
  const form = byId('queue-form').elements
  const answer = await ask('GET', 'queue', { filter: form.filter.value, limit: form.limit.value })
  const now = Date.now() / 1000
  const there = new Set(answer.items.map(row => row.qid))
  for (const qid of [...chosen]) if (!there.has(qid)) chosen.delete(qid)
  showChosen()
  draw(byId('queue-table'), [
    [choiceOfAll(answer.items), choice],
    ['Queue id', row => tracked(row.qid), 'id'],
    ['Status', row => row.status, row => states[row.status]],
    ['Sender', row => row.sender || '<>'],
    ['Recipients', people],
    ['Subject', row => row.subject],
    ['Size', row => bytes(row.size), 'number'],
    ['Age', row => span(row.age_s), 'number'],
    ['Attempts', row => row.attempts, 'number'],
    ['Next', row => row.next_attempt ? span(Math.max(0, Math.round(row.next_attempt - now))) : '',
      'number'],
    ['Connector', row => row.connector],
    ['Last error', row => row.last_error]
  ], answer.items, 'no message meets this')
  summary(`${answer.items.length} of ${answer.matched} messages shown`)
}

async function change(what) {
  const all = [...chosen]
  const sure = { remove: 'Remove them without a word to their senders?',
    bounce: 'Give them back to their senders?' }[what]
  if (sure && !confirm(`${all.length} messages. ${sure}`)) return
  for (const qid of all) await ask('POST', `queue/${what}`, { qid })
  chosen.clear()
  await showQueue()
}

// ---- next hops, connectors, status ----

async function showSites() {
  const answer = await ask('GET', 'sites', { limit: 1000 })
  const rows = answer.items.sort((a, b) => b.waiting - a.waiting)
  draw(byId('sites-table'), [
    ['Domain', row => row.domain || 'smart hosts'],
    ['Connector', row => row.connector],
    ['State', row => row.state, row => states[row.state]],
    ['Waiting', row => row.waiting, 'number'],
    ['Connections', row => row.connections, 'number'],
    ['Delivered', row => row.delivered, 'number'],
    ['Deferred', row => row.deferred, 'number'],
    ['Retry in', row => row.retry_in_s ? span(row.retry_in_s) : '', 'number'],
    ['Last remote', row => row.remote],
    ['Last error', row => row.last_error]
  ], rows, 'nothing was sent anywhere yet')
}

function switches(kind) {
  return row => {
    const made = element('span')
    const actions = row.state === 'enabled' ? ['suspend', 'disable']
      : row.state === 'suspended' ? ['resume'] : ['enable']
    for (const what of actions) {
      made.append(button(what, async () => {
        if (what === 'disable' && !confirm(`Disable ${row.name}?`)) return
        await ask('POST', `connectors/${what}`, { name: row.name, kind })
        await showConnectors()
      }), ' ')
    }
    return made
  }
}

async function showConnectors() {
  const answer = await ask('GET', 'connectors')
  draw(byId('receive-table'), [
    ['Name', row => row.name],
    ['State', row => row.state, row => states[row.state]],
    ['Addresses', row => row.bind.join(', ')],
    ['TLS', row => row.tls],
    ['Sessions', row => row.sessions, 'number'],
    ['', switches('receive')]
  ], answer.receive, 'none')
  draw(byId('send-table'), [
    ['Name', row => row.name],
    ['State', row => row.state, row => states[row.state]],
    ['Health', row => row.health, row => states[row.health]],
    ['Address spaces', row => row.address_spaces.map(one => `${one.space};${one.cost}`).join(', ')],
    ['Delivery', row => row.delivery],
    ['Waiting', row => row.waiting, 'number'],
    ['Connections', row => row.connections, 'number'],
    ['Delivered', row => row.delivered, 'number'],
    ['Deferred', row => row.deferred, 'number'],
    ['Last error', row => row.last_error],
    ['', switches('send')]
  ], answer.send, 'none')
}

let shown = ''

function summary(text) {
  shown = text
}

async function showStatus() {
  const s = await ask('GET', 'status')
  byId('instance').textContent = s.instance
  byId('summary').textContent = [
    s.ready ? s.state : `${s.state}, not ready: ${s.not_ready}`,
    `up ${span(s.uptime_s)}`,
    `${s.sessions} sessions`,
    `${s.queue_messages} queued (${bytes(s.queue_bytes)})`,
    s.queue_deferred && `${s.queue_deferred} deferred`,
    s.queue_held && `${s.queue_held} held`,
    s.queue_unreachable && `${s.queue_unreachable} unreachable`,
    s.queue_poison && `${s.queue_poison} poison`,
    `${s.outbound_connections} connections out`,
    s.pressure !== 'normal' && `pressure: ${s.pressure}`,
    s.last_reload_error && `last reload failed: ${s.last_reload_error}`,
    shown
  ].filter(Boolean).join(' · ')
}

// ---- tracking ----

function expression(form) {
  const terms = []
  const term = (key, value) => {
    const words = value.trim().replace(/["\\]/g, '\\$&')
    if (words) terms.push(`${key}${/[*?]/.test(words) ? '~' : '='}"${words}"`)
  }
  for (const key of ['qid', 'sender', 'recipient', 'message_id']) term(key, form[key].value)
  if (form.from.value) terms.push(`time>=${form.from.value}`)
  if (form.until.value) terms.push(`time<=${form.until.value}`)
  return terms.join(' and ')
}

const details = ['connector', 'remote', 'tls', 'account', 'client', 'kind', 'about', 'message_id']

async function showTracking() {
  const form = byId('tracking-form').elements
  const expr = expression(form)
  if (!expr) throw new Error('give at least one of the fields')
  const answer = await ask('GET', 'trace', { expr, limit: form.limit.value })
  const rows = answer.messages.flatMap(message => message.events.map((event, i) =>
    ({ ...event, qid: message.qid, first: i === 0 })))
  draw(byId('tracking-table'), [
    ['Time (UTC)', row => row.time.slice(0, 23).replace('T', ' '), 'id'],
    ['Queue id', row => row.first ? row.qid : '', 'id'],
    ['Event', row => [row.event, row.action].filter(Boolean).join(' '), row => states[row.event]],
    ['Sender', row => row.sender],
    ['Recipient', row => row.recipient],
    ['Status', row => row.status],
    ['Reply or reason', row => row.reply || row.reason],
    ['', row => details.filter(key => row[key]).map(key => `${key} ${row[key]}`).join(', ')]
  ], rows, 'no message meets this')
  summary(`${answer.shown} of ${answer.matched}${answer.more ? ' or more' : ''} messages shown`)
}

// ---- route explain ----

async function fillRoute() {
  const select = byId('route-form').elements.receive_connector
  if (select.options.length > 1) return
  const answer = await ask('GET', 'connectors')
  for (const one of answer.receive) select.append(new Option(one.name, one.name))
}

async function showRoute() {
  const form = byId('route-form').elements
  const answer = await ask('GET', 'route', { address: form.address.value,
    receive_connector: form.receive_connector.value, size: form.size.value })
  const hosts = (answer.hosts || []).map(one =>
    `${one.host}:${one.port} (priority ${one.priority}, weight ${one.weight}, ${one.state})`)
  byId('route-answer').textContent = answer.connector
    ? `${answer.verdict}: ${answer.connector}, cost ${answer.cost}, by ${answer.delivery}` +
      (hosts.length ? ` to ${hosts.join(', ')}` : '') : answer.verdict
  draw(byId('route-table'), [
    ['Send connector', row => row.connector],
    ['Verdict', row => row.verdict]
  ], answer.steps, 'there is no send connector')
}

// ---- pages ----

const pages = { queue: showQueue, sites: showSites, connectors: showConnectors,
  tracking: null, route: fillRoute }
const refreshed = new Set(['sites', 'connectors'])
let current = ''

async function open() {
  const [name, query] = location.hash.slice(1).split('?')
  current = name in pages ? name : 'queue'
  summary('')
  for (const id of Object.keys(pages)) byId(id).hidden = id !== current
  for (const link of byId('tabs').children) {
    link.toggleAttribute('aria-current', link.hash === `#${current}`)
  }
  if (current === 'tracking' && query) {
    const form = byId('tracking-form')
    form.reset()
    for (const [key, value] of new URLSearchParams(query)) {
      if (form.elements[key]) form.elements[key].value = value
    }
    await showTracking()
  } else if (pages[current]) {
    await pages[current]()
  }
  await showStatus()
}

byId('token-form').addEventListener('submit', doing(async () => {
  token = byId('token').value
  sessionStorage.setItem('token', token)
  byId('token').value = ''
  await open()
}))
byId('queue-form').addEventListener('submit', doing(async () => {
  await showQueue()
  await showStatus()
}))
for (const one of byId('queue-actions').querySelectorAll('button')) {
  one.addEventListener('click', doing(() => change(one.dataset.change)))
}
byId('tracking-form').addEventListener('submit', doing(async () => {
  await showTracking()
  await showStatus()
}))
byId('route-form').addEventListener('submit', doing(showRoute))
window.addEventListener('hashchange', doing(open))
setInterval(() => {
  if (document.hidden || !byId('problem').hidden) return
  doing(async () => {
    if (refreshed.has(current)) await pages[current]()
    await showStatus()
  })()
}, REFRESH_MS)
doing(open)()
