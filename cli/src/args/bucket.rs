//! What `remote add` and `remote set-url` take of a bucket.

use clap::Args;

/// How a bucket is reached; of secrets only where they are.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Options of buckets")]
pub(crate) struct BucketSource {
    /// The server, where it is not the cloud's own
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// The region; without it AWS_REGION, or what the profile says
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// The bucket is part of the host's name instead of the path
    #[arg(long)]
    pub(crate) virtual_host: bool,
    /// Ask without credentials
    #[arg(long, conflicts_with_all = ["profile", "access_key_env", "secret_key_env", "session_token_env"])]
    pub(crate) anonymous: bool,
    /// Take the credentials of this profile in ~/.aws
    #[arg(long, value_name = "NAME", conflicts_with_all = ["access_key_env", "secret_key_env", "session_token_env"])]
    pub(crate) profile: Option<String>,
    /// The variable that holds the access key's id (az: the account's name)
    #[arg(long, value_name = "VAR")]
    pub(crate) access_key_env: Option<String>,
    /// The variable that holds the secret key (az: the account's key; gs: the service account's key in JSON)
    #[arg(long, value_name = "VAR")]
    pub(crate) secret_key_env: Option<String>,
    /// The variable that holds a session token (az: a shared access signature)
    #[arg(long, value_name = "VAR")]
    pub(crate) session_token_env: Option<String>,
    /// At most so many bytes a second, each way: 500k, 2M
    #[arg(long, value_name = "BYTES")]
    pub(crate) limit_rate: Option<String>,
}

impl BucketSource {
    /// Whether anything of it is given.
    pub(crate) fn is_given(&self) -> bool {
        let texts = [
            &self.endpoint,
            &self.region,
            &self.profile,
            &self.access_key_env,
            &self.secret_key_env,
            &self.session_token_env,
            &self.limit_rate,
        ];
        self.virtual_host || self.anonymous || texts.into_iter().any(Option::is_some)
    }
}
