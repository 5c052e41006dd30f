//! Secrets that are none, planted in lines as agents write them: the truth that the privacy gate is measured against.
//!
//! From a seed, each of the kinds in each of the forms. The same seed gives the same lines. Nothing here was ever valid.

/// How a secret stands in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// As it is, in a line of text.
    Plain,
    /// In a string of JSON, behind and before line breaks or quotes.
    Escaped,
    /// In JSON in a string of JSON.
    Nested,
    /// In two or three strings that are put together.
    Split,
    /// Over two lines of the same string.
    Wrapped,
    /// In base64, alone or with its name.
    Base64,
    /// As in a query, with `%XX`.
    Percent,
}

/// All forms.
pub(crate) const FORMS: [Form; 7] =
    [Form::Plain, Form::Escaped, Form::Nested, Form::Split, Form::Wrapped, Form::Base64, Form::Percent];

/// A line with a secret.
pub(crate) struct Planted {
    /// What it would open.
    pub(crate) kind: &'static str,
    /// How it stands there.
    pub(crate) form: Form,
    /// The line, without its end.
    pub(crate) line: String,
    /// The secret.
    pub(crate) secret: String,
}

/// Numbers from a seed.
pub(crate) struct Random(u64);

impl Random {
    /// Begins a row.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One below a bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or_default()
    }

    fn letters(&mut self, alphabet: &str, count: usize) -> String {
        let alphabet = alphabet.as_bytes();
        (0..count).map(|_| char::from(alphabet[self.below(alphabet.len())])).collect()
    }
}

const DIGITS: &str = "0123456789";
const HEX: &str = "0123456789abcdef";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const WORD: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

/// The kinds: name, whether it is known by its name only, and the name that it is given.
pub(crate) const KINDS: [(&str, bool, &str); 22] = [
    ("github", false, "GITHUB_TOKEN"),
    ("github-fine", false, "GH_TOKEN"),
    ("aws-id", false, "AWS_ACCESS_KEY_ID"),
    ("aws-secret", true, "aws_secret_access_key"),
    ("stripe", false, "STRIPE_KEY"),
    ("slack", false, "SLACK_TOKEN"),
    ("slack-hook", false, "HOOK"),
    ("openai", false, "OPENAI_API_KEY"),
    ("anthropic", false, "ANTHROPIC_API_KEY"),
    ("google", false, "MAPS"),
    ("gitlab", false, "GITLAB"),
    ("npm", false, "NPM_TOKEN"),
    ("pypi", false, "TWINE_PASSWORD"),
    ("private-key", false, "key.pem"),
    ("jwt", false, "session"),
    ("url", false, "DATABASE_URL"),
    ("generic", true, "api_key"),
    ("agent-trace", false, "AGENT_TRACE_TOKEN"),
    ("huggingface", false, "HF_TOKEN"),
    ("sendgrid", false, "SENDGRID"),
    ("azure", true, "AccountKey"),
    ("digitalocean", false, "DO_TOKEN"),
];

fn secret(kind: &str, random: &mut Random) -> String {
    let mut r = |alphabet: &str, count: usize| random.letters(alphabet, count);
    match kind {
        "github" => format!("ghp_{}", r(ALNUM, 36)),
        "github-fine" => format!("github_pat_{}_{}", r(ALNUM, 22), r(ALNUM, 59)),
        "aws-id" => format!("AKIA{}", r(UPPER, 16)),
        "aws-secret" => r(BASE64, 40),
        "stripe" => format!("sk_live_{}", r(ALNUM, 24)),
        "slack" => format!("xoxb-{}-{}-{}", r(DIGITS, 11), r(DIGITS, 12), r(ALNUM, 24)),
        "slack-hook" => {
            format!("https://hooks.slack.com/services/T{}/B{}/{}", r(UPPER, 8), r(UPPER, 10), r(ALNUM, 24))
        }
        "openai" => format!("sk-proj-{}T3BlbkFJ{}", r(WORD, 74), r(WORD, 73)) + "Q",
        "anthropic" => format!("sk-ant-api03-{}AA", r(WORD, 93)),
        "google" => format!("AIza{}", r(ALNUM, 35)),
        "gitlab" => format!("glpat-{}", r(ALNUM, 20)),
        "npm" => format!("npm_{}", r(ALNUM, 36)),
        "pypi" => format!("pypi-AgEIcHlwaS5vcmc{}", r(WORD, 120)),
        "private-key" => {
            let lines: Vec<String> = (0..12).map(|_| r(BASE64, 64)).collect();
            format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----", lines.join("\n"))
        }
        "jwt" => {
            let body =
                base64(format!("{{\"sub\":\"{}\",\"iat\":17{}}}", r(DIGITS, 8), r(DIGITS, 8)).as_bytes());
            format!("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.{}.{}", body.trim_end_matches('='), r(WORD, 43))
        }
        "url" => {
            format!("postgres://svc_{}:{}@db{}.internal:5432/app", r(HEX, 4), r(ALNUM, 16), r(DIGITS, 2))
        }
        "generic" => r(ALNUM, 32),
        "agent-trace" => format!("at_{}_{}_{}", r(HEX, 16), r(ALNUM, 43), r(ALNUM, 6)),
        "huggingface" => format!("hf_{}", r("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", 34)),
        "sendgrid" => format!("SG.{}.{}", r(ALNUM, 22), r(ALNUM, 43)),
        "azure" => format!("{}==", r(BASE64, 86)),
        _ => format!("dop_v1_{}", r(HEX, 64)),
    }
}

/// Base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let alphabet = BASE64.as_bytes();
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let number =
            part.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for place in 0..4 {
            let value = (number >> (18 - 6 * place)) & 63;
            text.push(if place > part.len() { '=' } else { char::from(alphabet[value as usize]) });
        }
    }
    text
}

/// A string of JSON, with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

fn message(text: &str) -> String {
    format!(
        "{{\"type\":\"user\",\"message\":{{\"role\":\"user\",\"content\":[{{\"type\":\"tool_result\",\"content\":{}}}]}},\"uuid\":\"0b9a\"}}",
        quoted(text)
    )
}

/// Whether a kind can stand in a form: a private key is never split by hand, and fills lines of its own.
fn fits(kind: &str, form: Form) -> bool {
    match form {
        Form::Plain | Form::Split | Form::Wrapped | Form::Percent if kind == "private-key" => false,
        // What only its name tells has to stand beside it.
        Form::Wrapped => {
            !KINDS.iter().any(|(name, by_name, _)| *name == kind && *by_name)
                && !["url", "jwt"].contains(&kind)
        }
        Form::Split => !["generic", "jwt", "url", "azure"].contains(&kind),
        Form::Percent => !["url", "generic"].contains(&kind),
        _ => true,
    }
}

fn line(kind: &str, by_name: bool, name: &str, form: Form, secret: &str, random: &mut Random) -> String {
    let text = match random.below(4) {
        0 => format!("export {name}=\"{secret}\"\nnext line"),
        1 => format!("{name}={secret}\n"),
        2 => format!("some output\n{}: '{secret}'\n# rest", name),
        _ if by_name => format!("config\n  {name} = \"{secret}\"\n"),
        _ => format!("see\n{secret}\nthere"),
    };
    let inner = || format!("{{\"env\":{{{}:{}}},\"n\":1}}", quoted(name), quoted(secret));
    match form {
        Form::Plain => text.replace('\n', " "),
        Form::Escaped => message(&text),
        Form::Nested => message(&inner()),
        Form::Split => {
            let at = 2 + random.below(secret.len() - 4);
            let (one, two) = secret.split_at(at);
            let glue = ["\" + \"", "' + '", "\"\n    \"", "\" \\\n  \"", "\" . \""][random.below(5)];
            let quote = if glue.starts_with('\'') { '\'' } else { '"' };
            message(&format!("const a = {{\n  {name}: {quote}{one}{glue}{two}{quote},\n}};"))
        }
        Form::Wrapped => {
            let at = secret.len() / 3 + random.below(secret.len() / 3);
            let (one, two) = secret.split_at(at.max(12.min(secret.len() - 2)));
            message(&format!("{name}\n{one}\n  {two}\nend"))
        }
        Form::Base64 => {
            let plain = if by_name || kind == "url" || random.below(2) == 0 {
                format!("{name}={secret}\n")
            } else {
                secret.to_owned()
            };
            message(&format!("data:\n  value: {}\n", base64(plain.as_bytes())))
        }
        Form::Percent => {
            let code: String = secret
                .chars()
                .map(|it| {
                    if it.is_ascii_alphanumeric() {
                        it.to_string()
                    } else {
                        format!("%{:02X}", u32::from(it))
                    }
                })
                .collect();
            message(&format!("GET https://h.io/login?{name}={code}&next=%2Fhome\n"))
        }
    }
}

/// Plants so many of each kind in each form.
pub(crate) fn plant(seed: u64, each: usize) -> Vec<Planted> {
    let mut random = Random::new(seed);
    let mut planted = Vec::new();
    for (kind, by_name, name) in KINDS {
        for form in FORMS.into_iter().filter(|form| fits(kind, *form)) {
            for _ in 0..each {
                let secret = secret(kind, &mut random);
                let line = line(kind, by_name, name, form, &secret, &mut random);
                planted.push(Planted { kind, form, line, secret });
            }
        }
    }
    planted
}
