//! The files that git runs: what is in ours, and how they are told from others.
//!
//! A script finds the program by its absolute path, else on PATH, and ends with 0 where there is none. What was there
//! before runs first, with the same arguments and the same bytes on stdin, and its exit status is the hook's. Nothing of
//! ours is printed.

use super::Event;
use crate::hooks::command::{Program, quote};
use crate::hooks::files::BEFORE;

/// The second line of each.
const MARK: &str = "# agent-trace hook 1";

/// The script for an event.
pub(crate) fn script(event: Event, program: &Program) -> String {
    let name = event.name();
    let owned = if program.is_passing() { " && [ -O \"$program\" ]" } else { "" };
    let find = match program.path() {
        Some(path) => format!(
            "program={}\n[ -x \"$program\" ]{owned} || program=$(command -v agent-trace) || exit \"$status\"\n",
            quote(path)
        ),
        None => "program=$(command -v agent-trace) || exit \"$status\"\n".to_owned(),
    };
    let run = format!("\"$program\" hook {name} \"$@\" >/dev/null 2>&1 || :");
    let body = if event.reads_stdin() {
        // Whoever reads first leaves nothing to the others, so what came is kept; the dot keeps line ends at its end.
        let given = "printf %s \"${input%.}\" 2>/dev/null";
        let refused = match event {
            Event::PrePush => "    [ \"$status\" -eq 0 ] || exit \"$status\"\n",
            _ => "",
        };
        format!(
            "input=\nif [ -x \"$previous\" ]; then\n    input=$(cat; echo .)\n    \
             {given} | \"$previous\" \"$@\" || status=$?\n{refused}fi\n{find}\
             if [ -n \"$input\" ]; then\n    {given} | {run}\nelse\n    {run}\nfi\n"
        )
    } else {
        format!("[ -x \"$previous\" ] && {{ \"$previous\" \"$@\" || status=$?; }}\n{find}{run}\n")
    };
    format!(
        "#!/bin/sh\n{MARK}: tells agent-trace of each {name}. Never prints, never fails, never waits.\n\
         # What was here before is {name}{BEFORE} and runs first; `agent-trace hooks remove` puts it back.\n\
         previous=${{0%/*}}/{name}{BEFORE}\nstatus=0\n{body}exit \"$status\"\n"
    )
}

/// Whether a file is one of ours.
pub(crate) fn is_ours(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').nth(1).is_some_and(|line| line.starts_with(MARK.as_bytes()))
}

/// The program whose path a script of ours names, as quoted there.
pub(crate) fn program(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .find_map(|line| Some(line.strip_prefix("program=")?.to_owned()))
        .filter(|word| word.starts_with('\''))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_known_again() {
        for event in Event::ALL {
            let script = script(event, &Program::named());
            assert!(is_ours(script.as_bytes()), "{script}");
        }
        for other in ["", "#!/bin/sh\n", "#!/bin/sh\necho '# agent-trace hook 1'\n", "# agent-trace hook 1\n"]
        {
            assert!(!is_ours(other.as_bytes()), "{other}");
        }
    }
}
