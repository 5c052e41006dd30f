// Tells agent-trace what OpenCode does; made by `agent-trace hooks install`, taken out by `agent-trace hooks remove`.
// Never throws, never prints, and gives up after 10 seconds: a tool of OpenCode must not fail or wait for this.
import { spawn } from "node:child_process"

const PROGRAMS = "%PROGRAMS%"
const TIMEOUT_MS = 10000
const TEXT_CHARACTERS_MAX = 1 << 20

const tell = (program, input) =>
  new Promise((resolve) => {
    let timer
    const done = (started) => {
      clearTimeout(timer)
      resolve(started)
    }
    try {
      const child = spawn(program, ["record", "--agent", "opencode"], { stdio: ["pipe", "ignore", "ignore"] })
      timer = setTimeout(() => {
        child.kill("SIGKILL")
        done(true)
      }, TIMEOUT_MS)
      child.on("error", () => done(false))
      child.on("close", () => done(true))
      child.stdin.on("error", () => {})
      child.stdin.end(input)
    } catch {
      done(false)
    }
  })

const record = async (payload) => {
  try {
    const input = JSON.stringify(payload)
    for (const program of PROGRAMS) {
      if (await tell(program, input)) return
    }
  } catch {
    // What cannot be told is not worth a failed tool.
  }
}

const short = (text) => (typeof text === "string" ? text.slice(0, TEXT_CHARACTERS_MAX) : undefined)

export const AgentTrace = async ({ directory, worktree }) => {
  const around = (event) => ({ hook_event_name: event, cwd: directory, worktree, timestamp: new Date().toISOString() })
  return {
    "tool.execute.before": async (input, output) =>
      record({
        ...around("tool.execute.before"),
        sessionID: input?.sessionID,
        callID: input?.callID,
        tool: input?.tool,
        args: output?.args,
      }),
    "tool.execute.after": async (input, output) =>
      record({
        ...around("tool.execute.after"),
        sessionID: input?.sessionID,
        callID: input?.callID,
        tool: input?.tool,
        args: input?.args ?? output?.args,
        title: short(output?.title),
        output: short(output?.output),
        metadata: output?.metadata,
      }),
    event: async ({ event }) => {
      if (event?.type === "session.idle" || event?.type === "session.compacted") {
        await record({ ...around(event.type), sessionID: event.properties?.sessionID, properties: event.properties })
      }
    },
  }
}
