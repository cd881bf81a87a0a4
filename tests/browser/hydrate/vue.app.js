import { createSSRApp, h, ref } from 'vue'

export const app = () => createSSRApp({
  setup () {
    const count = ref(0)
    const rows = () => ['first', 'second', 'third'].map(name => h('li', { key: name }, [name, ' ', h('em', count.value)]))
    return () => h('main', [h('h1', 'Vue'), h('button', { 'data-press': '', onClick: () => count.value++ }, `pressed ${count.value} times`), h('ul', rows())])
  }
})
