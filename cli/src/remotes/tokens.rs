//! The tokens of remotes: `tokens` in `$AGENT_TRACE_HOME/config.json`, and how an entry of a remote refers to one.
//!
//! ```json
//! {"tokens":{"<project>::<remote>":"<token>"}}
//! ```
//!
//! Both are the format of agent-trace-cli. A token belongs to one remote of one project; nothing overrides it for all.

use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, LockMode};
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind};
use agent_trace_sync::token::Token;
use serde_json::{Map, Value, json};

use crate::document::Document;
use crate::report::Failure;
use crate::settings;

const FILE: &str = "config.json";
const LOCK: &str = ".config.lock";
const SECTION: &str = "tokens";

/// Where the token of a remote is.
#[derive(Clone, Debug)]
pub(crate) enum TokenRef {
    /// In `config.json`, under this key.
    Stored(String),
    /// In a variable of this name.
    Variable(String),
    /// In the entry itself, as older programs or people may have put it.
    Inline(Token),
    /// Where this version cannot look.
    Unknown,
}

impl TokenRef {
    /// Reads a reference.
    pub(super) fn parse(text: &str) -> TokenRef {
        match text.split_once(':') {
            Some(("global", key)) => TokenRef::Stored(key.to_owned()),
            Some(("env", name)) => TokenRef::Variable(name.to_owned()),
            Some(("keychain", _)) => TokenRef::Unknown,
            _ => Token::parse(text).map_or(TokenRef::Unknown, TokenRef::Inline),
        }
    }

    /// Says in an entry where its token is; a reference that is no name is not written.
    pub(super) fn write(&self, entry: &mut Map<String, Value>) {
        let text = match self {
            TokenRef::Stored(key) => format!("global:{key}"),
            TokenRef::Variable(name) => format!("env:{name}"),
            TokenRef::Inline(_) | TokenRef::Unknown => return,
        };
        let auth = entry.entry("auth").or_insert_with(|| json!({}));
        if !auth.is_object() {
            *auth = json!({});
        }
        auth["type"] = json!("bearer");
        auth["token_ref"] = json!(text);
    }
}

/// The tokens of the remotes of one project, or of a store outside git.
pub(crate) struct Tokens<'a> {
    env: &'a Env,
    home: Option<&'a Path>,
    scope: String,
}

impl<'a> Tokens<'a> {
    /// Those of a scope: a project's id, or `store-` and a store's id.
    pub(crate) fn new(env: &'a Env, home: Option<&'a Path>, scope: String) -> Tokens<'a> {
        Tokens { env, home, scope }
    }

    /// The key under which the token of a remote is kept.
    pub(super) fn key(&self, remote: &str) -> String {
        format!("{}::{remote}", self.scope)
    }

    /// The token that is referred to, if there is one.
    pub(crate) fn resolve(&self, reference: &TokenRef) -> Result<Option<Token>, Failure> {
        match reference {
            TokenRef::Stored(key) => self.get(key),
            TokenRef::Variable(name) => from_variable(name),
            TokenRef::Inline(token) => Ok(Some(token.clone())),
            TokenRef::Unknown => Ok(None),
        }
    }

    fn get(&self, key: &str) -> Result<Option<Token>, Failure> {
        let Some(home) = self.home else { return Ok(None) };
        let document = Document::read(self.env, &home.join(FILE))?;
        match document.section(SECTION)?.and_then(|tokens| tokens.get(key)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => {
                let token =
                    Token::parse(text).map_err(|error| error.context(format!("`tokens.{key}` is no token")));
                Ok(Some(token?))
            }
            Some(_) => Err(document.refused(&format!("expected `tokens.{key}` to be a string"))),
        }
    }

    /// Keeps the token of a remote.
    pub(super) fn set(&self, remote: &str, token: &Token) -> Result<(), Failure> {
        let key = self.key(remote);
        self.change(|document| {
            document.section_mut(SECTION)?.insert(key, json!(token.expose()));
            Ok(())
        })
    }

    /// Keeps the token of a remote under another name too, if there is one.
    pub(super) fn copy(&self, from: &str, to: &str) -> Result<(), Failure> {
        let (from, to) = (self.key(from), self.key(to));
        self.change(|document| {
            if let Some(token) = document.section(SECTION)?.and_then(|tokens| tokens.get(&from)).cloned() {
                document.section_mut(SECTION)?.insert(to, token);
            }
            Ok(())
        })
    }

    /// Forgets the token of a remote.
    pub(super) fn remove(&self, remote: &str) -> Result<(), Failure> {
        let key = self.key(remote);
        // A home without settings is not made for this.
        if self.home.is_none_or(|home| self.env.fs.metadata(&home.join(FILE)).is_err()) {
            return Ok(());
        }
        self.change(|document| document.remove(SECTION, &key))
    }

    /// Forgets those of all remotes.
    pub(crate) fn remove_all(&self) -> Result<(), Failure> {
        let prefix = self.key("");
        if self.home.is_none_or(|home| self.env.fs.metadata(&home.join(FILE)).is_err()) {
            return Ok(());
        }
        self.change(|document| {
            let keys = document.section(SECTION)?.map(|tokens| tokens.keys().cloned().collect::<Vec<_>>());
            let own = keys.into_iter().flatten().filter(|key| key.starts_with(&prefix));
            own.into_iter().try_for_each(|key| document.remove(SECTION, &key))
        })
    }

    fn change(&self, work: impl FnOnce(&mut Document) -> Result<(), Failure>) -> Result<(), Failure> {
        let home = self.home()?;
        self.env
            .fs
            .create_dir_all(&home)
            .map_err(|error| Error::io(format!("cannot create `{}`", home.display()), error))?;
        let _alone = lock(self.env, &home.join(LOCK), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        remove_leftovers(self.env, &home);
        let mut document = Document::read(self.env, &home.join(FILE))?;
        work(&mut document)?;
        document.write(self.env)
    }

    fn home(&self) -> Result<PathBuf, Failure> {
        self.home.map(Path::to_owned).ok_or_else(|| {
            let message = "cannot keep a token: neither AGENT_TRACE_HOME nor HOME is set";
            Failure::new(ErrorKind::Invalid, message, "set AGENT_TRACE_HOME, or use --token-env VAR")
        })
    }
}

/// Removes what was written aside by one that died: it holds tokens. Only holders of the lock write here.
fn remove_leftovers(env: &Env, home: &Path) {
    for entry in env.fs.list(home).unwrap_or_default() {
        let name = entry.name.to_string_lossy();
        if name.starts_with(".config.json.") && name.ends_with(".new") {
            // Whoever may not remove it may not write the file either, and is told so.
            let _ = env.fs.remove(&home.join(&entry.name));
        }
    }
}

/// The token in a variable; one that is not set or empty is none.
pub(super) fn from_variable(name: &str) -> Result<Option<Token>, Failure> {
    let Some(text) = settings::secret(name)? else { return Ok(None) };
    let token =
        Token::parse(&text).map_err(|error| error.context(format!("the variable `{name}` holds no token")));
    Ok(Some(token?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_others_write_them() {
        let check = |text: &str, expected: &str| assert_eq!(format!("{:?}", TokenRef::parse(text)), expected);
        check("global:at-0::origin", "Stored(\"at-0::origin\")");
        check("global:origin", "Stored(\"origin\")");
        check("env:TEAM_TOKEN", "Variable(\"TEAM_TOKEN\")");
        check("keychain:x", "Unknown");
        check("at_secret", "Inline(Token(********))");
        check("", "Unknown");
    }
}
