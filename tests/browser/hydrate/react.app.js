import { createElement as h, useState } from 'react'

export function App () {
  const [count, press] = useState(0)
  const rows = ['first', 'second', 'third'].map(name => h('li', { key: name }, name, ' ', h('em', null, count)))
  return h('main', null, h('h1', null, 'React'), h('button', { 'data-press': '', onClick: () => press(count + 1) }, 'pressed ', count, ' times'), h('ul', null, rows))
}
