import { hydrate } from 'svelte'
import Counter from './Counter.client.js'

hydrate(Counter, { target: document.getElementById('app') })
