import * as first from './message.js'
import { name } from './name.js'
import './style.css'

const put = (id, text) => (document.getElementById(id).textContent = text)

function show(module) {
  put('message', module.message)
  put('chain', module.chain)
}

show(first)
import.meta.hot.accept('./message.js', show)

/** Asks the server for its name, as an application does long after the page was loaded. */
window.ask = async (query = '') => (await fetch(`/api/name${query}`)).text()

/** Opens a WebSocket and gives the first answer on it. */
window.call = (text) =>
  new Promise((done, failed) => {
    const socket = new WebSocket(`ws://${location.host}/live/${name}`)
    socket.onopen = () => socket.send(text)
    socket.onmessage = ({ data }) => done(data)
    socket.onerror = () => failed(new Error('the WebSocket failed'))
  })

window.late = async () => (await import('./late.js')).late

put('fetched', await window.ask())
put('live', await window.call('hello'))
document.body.dataset.ready = 'yes'
