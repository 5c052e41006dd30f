//! The token that a command was given: by one of five options, as a value to keep or as the name of a variable.

use std::io::Read;
use std::process::{Command, Stdio};

use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;
use agent_trace_store::{Error, ErrorKind};
use agent_trace_sync::limits::TOKEN_BYTES_MAX;
use agent_trace_sync::token::Token;

use super::tokens::from_variable;
use crate::args;
use crate::report::Failure;
use crate::settings::ADMIN_SECRET;
use crate::ui::Ui;

/// A token with the line break behind it, and more than that is no token.
const INPUT_BYTES_MAX: u64 = TOKEN_BYTES_MAX as u64 + 64;

/// What a command was given.
#[derive(Clone, Debug)]
pub(crate) enum Given {
    /// A token to keep.
    Token(Token),
    /// The name of the variable that will hold the token.
    Variable(String),
}

impl Given {
    /// Takes the token from where the options say.
    pub(crate) fn read(env: &Env, ui: &Ui, args: &args::TokenSource) -> Result<Option<Given>, Failure> {
        if let Some(name) = &args.token_env {
            check_variable("--token-env", name)?;
            return Ok(Some(Given::Variable(name.clone())));
        }
        let text = if let Some(args::Secret(text)) = &args.token {
            ui.warn("a token on the command line stands in the shell's history and in the list of processes; --token-stdin keeps it out of both");
            text.clone()
        } else if args.token_stdin {
            utf8(ui.input(INPUT_BYTES_MAX)?)?
        } else if let Some(path) = &args.token_file {
            let bytes = read_small(env, path, INPUT_BYTES_MAX);
            utf8(bytes.map_err(|error| {
                Error::io(format!("cannot read the token file `{}`", path.display()), error)
            })?)?
        } else if let Some(command) = &args.token_command {
            utf8(output(command)?)?
        } else {
            return Ok(None);
        };
        Ok(Some(Given::Token(Token::parse(&text)?)))
    }

    /// The token, as far as it is known now.
    pub(crate) fn token(&self) -> Result<Option<Token>, Failure> {
        match self {
            Given::Token(token) => Ok(Some(token.clone())),
            Given::Variable(name) => from_variable(name),
        }
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String, Failure> {
    // What it is not is not shown: it may be most of a secret.
    String::from_utf8(bytes).map_err(|_| Error::invalid("cannot take the token: it is no text").into())
}

/// The name is not repeated in the refusal: it may be a token in the wrong place.
pub(super) fn check_variable(option: &str, name: &str) -> Result<(), Failure> {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let rest = |byte: u8| first(byte) || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    if !(1..=128).contains(&bytes.len()) || !first(bytes[0]) || !bytes.iter().all(|byte| rest(*byte)) {
        let message = format!(
            "cannot take what {option} names: expected the name of a variable, of letters, digits and `_`"
        );
        let hint = if option == "--token-env" {
            "a token itself is given by --token-stdin"
        } else {
            "put the secret into a variable, and give its name"
        };
        return Err(Failure::new(ErrorKind::Invalid, message, hint));
    }
    if name == ADMIN_SECRET {
        let message =
            format!("cannot use `{ADMIN_SECRET}` as the token of a remote: it only creates projects");
        return Err(Failure::new(
            ErrorKind::Invalid,
            message,
            "name a variable that holds a token of the project",
        ));
    }
    Ok(())
}

/// What a shell command prints; it may ask its user something meanwhile.
fn output(command: &str) -> Result<Vec<u8>, Failure> {
    let failed =
        |error| Error::new(ErrorKind::Failed, "cannot run the command of --token-command").with_source(error);
    let mut child =
        Command::new("sh").args(["-c", command]).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut bytes = Vec::new();
    let stdout = child.stdout.take().expect("it has just been asked for");
    // More than this is refused; the pipe is closed then, so that the command ends.
    let read = stdout.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes);
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(
            Error::invalid("cannot take the token: the command of --token-command prints too much").into()
        );
    }
    if !status.success() {
        let message = format!("the command of --token-command has failed: {status}");
        return Err(Error::new(ErrorKind::Failed, message).into());
    }
    Ok(bytes)
}
