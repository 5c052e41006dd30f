//! `rule`: a file in the repository by which an agent learns to ask why a line is there, before it changes it.
//!
//! Only a file that this program wrote is replaced or removed.

use std::io;
use std::path::{Path, PathBuf};

use agent_trace_store::layout::{read_small, write_durably};
use agent_trace_store::{Error, ErrorKind};

use super::Context;
use crate::args::{self, RuleTool};
use crate::git::process::Git;
use crate::json;
use crate::report::{Done, Failure};

const NAME: &str = "context-for-agents";
const MARK: &str = "<!-- written by agent-trace rule add -->";
const FILE_BYTES_MAX: u64 = 1 << 20;
const TEXT: &str = "\
# Why a line is there

Before you change or remove code in this repository that you did not write in this session, find out why it is there:

- `agent-trace blame FILE -r A-B` says which lines an agent wrote, when, and what it was asked for.
- `agent-trace context FILE -l A-B` shows the prompt, the answer and the edit behind these lines; `--json` for programs.
- `agent-trace search WORDS` finds earlier decisions in all conversations of this repository.

What people decided there still holds unless you are told otherwise. Say so when your change goes against it.
";
const TOOLS: [RuleTool; 3] = [RuleTool::Cursor, RuleTool::Claude, RuleTool::Codex];

pub(super) fn run(context: &Context, args: &args::Rule) -> Result<Done, Failure> {
    match args {
        args::Rule::Add(args) => add(context, args)?,
        args::Rule::Remove(args) => remove(context, args)?,
        args::Rule::Show if context.ui.is_json() => context.ui.json(&document(context)?)?,
        args::Rule::Show => context.ui.bytes(TEXT.as_bytes())?,
        args::Rule::List => list(context)?,
    }
    Ok(Done::Well)
}

fn name_of(tool: RuleTool) -> &'static str {
    match tool {
        RuleTool::Cursor => "cursor",
        RuleTool::Claude => "claude",
        RuleTool::Codex => "codex",
    }
}

/// Where a rule lies, from the root of the repository.
fn file_of(tool: RuleTool) -> PathBuf {
    let ending = if tool == RuleTool::Cursor { "mdc" } else { "md" };
    Path::new(&format!(".{}", name_of(tool))).join("rules").join(format!("agent-trace-{NAME}.{ending}"))
}

fn content_of(tool: RuleTool) -> String {
    let head = match tool {
        RuleTool::Cursor => "---\ndescription: How to find out why a line is there\nalwaysApply: true\n---\n",
        RuleTool::Claude | RuleTool::Codex => "",
    };
    format!("{head}{MARK}\n{TEXT}")
}

fn root(context: &Context) -> Result<PathBuf, Failure> {
    let printed = Git::from(&context.settings.directory).ask(&["rev-parse", "--show-toplevel"]);
    let printed = printed.map_err(|error| {
        let message = "a rule lies in the work tree of a git repository, and there is none here";
        Failure::from(Error::invalid(message).with_source(error.to_string()))
    })?;
    let printed = printed.strip_suffix(b"\n").unwrap_or(&printed);
    Ok(PathBuf::from(std::os::unix::ffi::OsStrExt::from_bytes(printed) as &std::ffi::OsStr))
}

/// What is written for an agent; nothing where there is no file.
fn read(context: &Context, path: &Path) -> Result<Option<String>, Failure> {
    match read_small(&context.env, path, FILE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("cannot read `{}`", path.display()), error).into()),
    }
}

fn check(args: &args::RuleName) -> Result<(), Failure> {
    if args.name == NAME {
        return Ok(());
    }
    let message = format!("there is no rule `{}`", args.name);
    Err(Failure::new(ErrorKind::NotFound, message, format!("agent-trace rule add {NAME} --tool ...")))
}

/// Refuses a file that somebody else wrote.
fn check_ours(path: &Path, known: Option<&str>) -> Result<(), Failure> {
    if known.is_none_or(|known| known.contains(MARK)) {
        return Ok(());
    }
    let message = format!("`{}` was not written by agent-trace, and stays as it is", path.display());
    Err(Error::invalid(message).into())
}

fn add(context: &Context, args: &args::RuleName) -> Result<(), Failure> {
    check(args)?;
    let path = root(context)?.join(file_of(args.tool));
    let known = read(context, &path)?;
    check_ours(&path, known.as_deref())?;
    let content = content_of(args.tool);
    if known.as_deref() != Some(content.as_str()) {
        if let Some(directory) = path.parent() {
            let doing = |error| Error::io(format!("cannot create `{}`", directory.display()), error);
            context.env.fs.create_dir_all(directory).map_err(doing)?;
        }
        write_durably(&context.env, &path, content.as_bytes(), false)?;
    }
    if context.ui.is_json() {
        context.ui.json(&document(context)?)?;
    } else {
        context.ui.line(format_args!(
            "rule {NAME} is written for {}: {}",
            name_of(args.tool),
            file_of(args.tool).display()
        ))?;
    }
    Ok(())
}

fn remove(context: &Context, args: &args::RuleName) -> Result<(), Failure> {
    check(args)?;
    let path = root(context)?.join(file_of(args.tool));
    let known = read(context, &path)?;
    check_ours(&path, known.as_deref())?;
    if known.is_some() {
        let doing = |error| Error::io(format!("cannot remove `{}`", path.display()), error);
        context.env.fs.remove(&path).map_err(doing)?;
    }
    if context.ui.is_json() {
        context.ui.json(&document(context)?)?;
    } else {
        let what = if known.is_some() { "is removed" } else { "was not there" };
        context.ui.line(format_args!("rule {NAME} for {} {what}", name_of(args.tool)))?;
    }
    Ok(())
}

fn document(context: &Context) -> Result<json::Rule, Failure> {
    let root = root(context)?;
    let mut tools = Vec::new();
    for tool in TOOLS {
        let file = file_of(tool);
        let known = read(context, &root.join(&file))?;
        tools.push(json::RuleFile {
            tool: name_of(tool),
            path: file.display().to_string(),
            written: known.is_some_and(|known| known.contains(MARK)),
        });
    }
    Ok(json::Rule { schema: json::RULE, rule: NAME, text: TEXT, tools })
}

fn list(context: &Context) -> Result<(), Failure> {
    let document = document(context)?;
    if context.ui.is_json() {
        context.ui.json(&document)?;
        return Ok(());
    }
    context.ui.line(context.ui.strong(NAME))?;
    for tool in &document.tools {
        let state = if tool.written { "written" } else { "-" };
        context.ui.line(format_args!("  {:<8} {state:<8} {}", tool.tool, context.ui.faint(&tool.path)))?;
    }
    Ok(())
}
