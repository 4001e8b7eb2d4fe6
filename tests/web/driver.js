// How a scenario talks with the test that started it: it prints the ports of its servers in one line of JSON,
// and is told the URL of the relay, behind which they are then, in one line on its standard input.

import { createInterface } from 'node:readline/promises'

/** Tells which ports are to be exposed, in the order of the clients, and waits for the relay's URL. */
export async function behindRelay(...ports) {
  process.stdout.write(`${JSON.stringify({ ports })}\n`)
  const lines = createInterface({ input: process.stdin })
  for await (const line of lines) {
    lines.close()
    return line.trim()
  }
  throw new Error('the test ended before it told the URL of the relay')
}

/** Runs the scenario that the command line names, and ends the process with its outcome. */
export async function runScenario(scenarios) {
  const scenario = scenarios[process.argv[2]]
  if (!scenario) throw new Error(`name one of ${Object.keys(scenarios).join(', ')}`)
  try {
    await scenario()
    process.exit(0)
  } catch (error) {
    console.error(error)
    process.exit(1)
  }
}
