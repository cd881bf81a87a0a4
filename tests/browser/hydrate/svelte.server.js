import { render } from 'svelte/server'
import Counter from './Counter.server.js'

export const markup = () => render(Counter).body
