//! What is kept of a bucket beside its URL, and where its credentials come from.
//!
//! ```json
//! {"url":"s3://team/traces","bucket":{"endpoint":"https://s3.lan","region":"eu-1","virtual_host":true,"anonymous":true,
//!  "profile":"team","access_key_env":"VAR","secret_key_env":"VAR","session_token_env":"VAR","limit_rate":500000}}
//! ```
//!
//! Each member is there only where it says something. A secret is named, never kept: it is read from its variable or
//! from `~/.aws` each time, and goes nowhere but into signatures.

use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;
use agent_trace_store::{Error, ErrorKind};
use agent_trace_sync::address::Plaintext;
use agent_trace_sync::bucket::{BucketOptions, BucketUrl, Cloud, Credential, Credentials};
use serde_json::{Map, Value, json};

use crate::args;
use crate::report::Failure;
use crate::settings;

/// The member of an entry.
pub(super) const MEMBER: &str = "bucket";
/// The files of the AWS tools are short.
const PROFILES_BYTES_MAX: u64 = 1 << 20;

/// What an entry says of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BucketEntry {
    /// How it is reached.
    pub(crate) options: BucketOptions,
    /// The profile with its credentials.
    pub(crate) profile: Option<String>,
    /// The variables with its credentials, with what they hold.
    pub(crate) variables: Vec<(Credential, String)>,
}

const VARIABLES: [(Credential, &str); 3] = [
    (Credential::AccessKey, "access_key_env"),
    (Credential::SecretKey, "secret_key_env"),
    (Credential::SessionToken, "session_token_env"),
];

impl BucketEntry {
    /// Takes what a command was given.
    pub(crate) fn given(args: &args::BucketSource) -> Result<BucketEntry, Failure> {
        let names = [&args.access_key_env, &args.secret_key_env, &args.session_token_env];
        let mut variables = Vec::new();
        for ((part, option), name) in VARIABLES.into_iter().zip(names) {
            if let Some(name) = name {
                super::given::check_variable(&format!("--{}", option.replace('_', "-")), name)?;
                variables.push((part, name.clone()));
            }
        }
        Ok(BucketEntry {
            options: BucketOptions {
                endpoint: args.endpoint.clone(),
                region: args.region.clone(),
                virtual_host: args.virtual_host,
                anonymous: args.anonymous,
                rate_bytes: args.limit_rate.as_deref().map(rate).transpose()?,
            },
            profile: args.profile.clone(),
            variables,
        })
    }

    /// Reads what an entry says; what cannot be read says nothing.
    pub(super) fn read(entry: &Map<String, Value>) -> BucketEntry {
        let said = entry.get(MEMBER);
        let text = |name: &str| said.and_then(|said| said.get(name)?.as_str()).map(str::to_owned);
        let flag = |name: &str| said.and_then(|said| said.get(name)?.as_bool()).unwrap_or(false);
        let variables = VARIABLES.into_iter();
        BucketEntry {
            options: BucketOptions {
                endpoint: text("endpoint"),
                region: text("region"),
                virtual_host: flag("virtual_host"),
                anonymous: flag("anonymous"),
                rate_bytes: said.and_then(|said| said.get("limit_rate")?.as_u64()),
            },
            profile: text("profile"),
            variables: variables.filter_map(|(part, name)| Some((part, text(name)?))).collect(),
        }
    }

    /// Says it in an entry; members of the object that are not ours stay.
    pub(super) fn write(&self, entry: &mut Map<String, Value>) {
        let mut said = match entry.shift_remove(MEMBER) {
            Some(Value::Object(said)) => said,
            _ => Map::new(),
        };
        let variable = |part: Credential| {
            self.variables.iter().find(|(found, _)| *found == part).map(|(_, name)| json!(name))
        };
        let mut set = |name: &str, value: Option<Value>| match value {
            Some(value) => {
                said.insert(name.into(), value);
            }
            None => {
                said.shift_remove(name);
            }
        };
        let options = &self.options;
        set("endpoint", options.endpoint.as_ref().map(|text| json!(text)));
        set("region", options.region.as_ref().map(|text| json!(text)));
        set("virtual_host", options.virtual_host.then(|| json!(true)));
        set("anonymous", options.anonymous.then(|| json!(true)));
        set("profile", self.profile.as_ref().map(|text| json!(text)));
        for (part, name) in VARIABLES {
            set(name, variable(part));
        }
        set("limit_rate", options.rate_bytes.map(|rate| json!(rate)));
        if !said.is_empty() {
            entry.insert(MEMBER.into(), Value::Object(said));
        }
    }

    /// The address with all that is said of it, but for credentials.
    pub(crate) fn complete(&self, url: BucketUrl, plaintext: Plaintext) -> Result<BucketUrl, Error> {
        url.with_options(self.options.clone(), plaintext)
    }

    /// Finds the credentials, and the region where only they say it.
    pub(crate) fn sign(&self, env: &Env, home: Option<&Path>, url: &mut BucketUrl) -> Result<(), Failure> {
        if self.options.anonymous {
            return Ok(());
        }
        let mut found = Credentials::default();
        for (part, name) in &self.variables {
            let text = settings::secret(name)?.ok_or_else(|| unset(name))?;
            found.set(*part, &text);
        }
        if found.is_empty() && self.profile.is_none() {
            take_usual(url.cloud, &mut found)?;
        }
        if url.cloud == Cloud::S3 {
            let name = self.profile.as_deref();
            if let (true, Some(profile)) = (found.is_empty(), Profile::find(env, home, name)?) {
                profile.sign(&mut found);
                if self.options.region.is_none() {
                    url.set_region(profile.region.as_deref());
                }
            }
            if found.is_empty() && self.profile.is_some() {
                let message = format!("the profile `{}` holds no keys", name.unwrap_or_default());
                return Err(Failure::new(ErrorKind::Denied, message, "look into ~/.aws/credentials"));
            }
            if self.options.region.is_none() {
                for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
                    url.set_region(settings::secret(name)?.as_deref());
                }
            }
        }
        url.credentials = found;
        Ok(())
    }

    /// Where the credentials are, for people.
    pub(crate) fn words(&self, cloud: Cloud) -> String {
        if self.options.anonymous {
            return "none: asked without".to_owned();
        }
        if !self.variables.is_empty() {
            let names: Vec<&str> = self.variables.iter().map(|(_, name)| name.as_str()).collect();
            return format!("in the variables {}", names.join(", "));
        }
        match &self.profile {
            Some(profile) => format!("in the profile {profile}"),
            None => format!(
                "where {} tools look for them",
                match cloud {
                    Cloud::S3 => "AWS",
                    Cloud::Google => "Google's",
                    Cloud::Azure => "Azure's",
                }
            ),
        }
    }
}

fn unset(name: &str) -> Failure {
    let message = format!("the variable `{name}` is not set, which is to hold credentials of the bucket");
    Failure::new(ErrorKind::Denied, message, format!("export {name}=..."))
}

/// Takes credentials from the variables by which the tools of a cloud find them.
fn take_usual(cloud: Cloud, found: &mut Credentials) -> Result<(), Failure> {
    let names: &[(Credential, &str)] = match cloud {
        Cloud::S3 => &[
            (Credential::AccessKey, "AWS_ACCESS_KEY_ID"),
            (Credential::SecretKey, "AWS_SECRET_ACCESS_KEY"),
            (Credential::SessionToken, "AWS_SESSION_TOKEN"),
            (Credential::IdentityFile, "AWS_WEB_IDENTITY_TOKEN_FILE"),
            (Credential::Role, "AWS_ROLE_ARN"),
            (Credential::ContainerPath, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            (Credential::ContainerUrl, "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            (Credential::ContainerTokenFile, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        ],
        Cloud::Google => &[(Credential::ServiceAccountFile, "GOOGLE_APPLICATION_CREDENTIALS")],
        Cloud::Azure => &[
            (Credential::AccessKey, "AZURE_STORAGE_ACCOUNT_NAME"),
            (Credential::SecretKey, "AZURE_STORAGE_ACCOUNT_KEY"),
            (Credential::SessionToken, "AZURE_STORAGE_SAS_TOKEN"),
        ],
    };
    for (part, name) in names {
        if let Some(text) = settings::secret(name)? {
            found.set(*part, &text);
        }
    }
    Ok(())
}

/// The keys of a profile of the AWS tools.
#[derive(Default)]
struct Profile {
    key: Option<String>,
    secret: Option<String>,
    token: Option<String>,
    region: Option<String>,
}

impl Profile {
    /// Looks for a profile; without a name for the usual one, which need not be there.
    fn find(env: &Env, home: Option<&Path>, name: Option<&str>) -> Result<Option<Profile>, Failure> {
        let place = |variable: &str, file: &str| {
            settings::folder(variable).or_else(|| home.map(|home| home.join(".aws").join(file)))
        };
        let usual = settings::secret("AWS_PROFILE")?.unwrap_or_else(|| "default".to_owned());
        let wanted = name.unwrap_or(&usual);
        let mut profile = Profile::default();
        let mut is_there = false;
        let files =
            [("AWS_SHARED_CREDENTIALS_FILE", "credentials", ""), ("AWS_CONFIG_FILE", "config", "profile ")];
        for (variable, file, before) in files {
            let Some(path) = place(variable, file) else { continue };
            let Ok(bytes) = read_small(env, &path, PROFILES_BYTES_MAX) else { continue };
            is_there |= profile.read(&String::from_utf8_lossy(&bytes), wanted, before);
        }
        if !is_there && name.is_some() {
            let message = format!("there is no profile `{wanted}`");
            return Err(Failure::new(ErrorKind::Denied, message, "look into ~/.aws/credentials"));
        }
        Ok(is_there.then_some(profile))
    }

    /// Reads the section of a profile; what is known already stays.
    fn read(&mut self, text: &str, wanted: &str, before: &str) -> bool {
        let (mut inside, mut is_there) = (false, false);
        for line in text.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
                let section = section.trim();
                inside = section == wanted || section.strip_prefix(before).map(str::trim) == Some(wanted);
                is_there |= inside;
                continue;
            }
            let Some((name, value)) = line.split_once('=').filter(|_| inside && !line.starts_with('#'))
            else {
                continue;
            };
            let field = match name.trim() {
                "aws_access_key_id" => &mut self.key,
                "aws_secret_access_key" => &mut self.secret,
                "aws_session_token" => &mut self.token,
                "region" => &mut self.region,
                _ => continue,
            };
            field.get_or_insert_with(|| value.trim().to_owned());
        }
        is_there
    }

    fn sign(&self, found: &mut Credentials) {
        if let (Some(key), Some(secret)) = (&self.key, &self.secret) {
            found.set(Credential::AccessKey, key);
            found.set(Credential::SecretKey, secret);
            found.set(Credential::SessionToken, self.token.as_deref().unwrap_or_default());
        }
    }
}

/// Reads a rate: a number of bytes, with `k`, `M` or `G` for powers of 1,000.
pub(crate) fn rate(text: &str) -> Result<u64, Failure> {
    let (digits, unit) = match text.trim().strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => match text.trim().strip_suffix('M') {
            Some(digits) => (digits, 1_000_000),
            None => match text.trim().strip_suffix('G') {
                Some(digits) => (digits, 1_000_000_000),
                None => (text.trim(), 1),
            },
        },
    };
    let rate = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    rate.filter(|rate| *rate > 0).ok_or_else(|| {
        Error::invalid("cannot read the rate: expected bytes a second, such as 500k or 2M").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        for (text, expected) in
            [("1024", 1024), ("500k", 500_000), ("2M", 2_000_000), (" 1G ", 1_000_000_000)]
        {
            assert_eq!(rate(text).unwrap(), expected);
        }
        for text in ["", "0", "-1", "2m", "k", "1.5M", "99999999999999999999"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_entry_keeps_names_and_what_others_wrote() {
        let entry = BucketEntry {
            options: BucketOptions {
                endpoint: Some("https://s3.lan".into()),
                rate_bytes: Some(9),
                virtual_host: true,
                ..BucketOptions::default()
            },
            profile: None,
            variables: vec![(Credential::AccessKey, "A".into()), (Credential::SecretKey, "B".into())],
        };
        let mut map = Map::new();
        entry.write(&mut map);
        let expected = json!({"bucket": {"endpoint": "https://s3.lan", "virtual_host": true, "access_key_env": "A",
            "secret_key_env": "B", "limit_rate": 9}});
        assert_eq!(Value::Object(map.clone()), expected);
        assert_eq!(BucketEntry::read(&map), entry);
        map.get_mut(MEMBER).unwrap()["later"] = json!(1);
        BucketEntry::default().write(&mut map);
        assert_eq!(Value::Object(map), json!({"bucket": {"later": 1}}));
    }

    #[test]
    fn profiles_are_read_from_both_files() {
        let mut profile = Profile::default();
        let credentials = "[default]\naws_access_key_id=no\n [ team ]\n# a comment = x\naws_access_key_id = KEY\naws_secret_access_key=a=b\n";
        assert!(profile.read(credentials, "team", ""));
        assert!(profile.read(
            "[profile team]\nregion = eu-1\naws_access_key_id = other\n[x]\n",
            "team",
            "profile "
        ));
        assert!(!profile.read("[others]\nregion = x\n", "team", ""));
        let read = (profile.key.as_deref(), profile.secret.as_deref(), profile.region.as_deref());
        assert_eq!(read, (Some("KEY"), Some("a=b"), Some("eu-1")));
    }
}
