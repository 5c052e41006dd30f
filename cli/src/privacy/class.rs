//! What a finding of a rule means: that it is a secret, or that it may be one.
//!
//! Only what is certain stops a push. A rule is certain if its secrets have a form that nothing else has: a prefix that
//! was made to be recognised, a checksum, the frame of a private key, the place of a password in a URL. A rule that
//! knows a secret only by the name before it, or by its disorder, is possible: so is every rule that stands here not.

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// It may be a secret.
    Possible,
    /// It is one.
    Certain,
}

impl Class {
    /// Its name, in output and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Class::Possible => "possible",
            Class::Certain => "certain",
        }
    }
}

/// A prefix that its issuer made to be recognised.
pub(crate) const PREFIX: &str = "prefix";
/// A prefix, and a length or parts that nothing else has.
pub(crate) const PREFIX_PARTS: &str = "prefix and parts";
/// A mark in the middle or at the end, and an exact length.
const MARK: &str = "mark and length";
/// The lines round a private key.
const FRAME: &str = "frame of a key";
/// A URL that is a secret itself, or holds one.
const URL: &str = "url";

/// The certain rules of gitleaks, each with the reason.
const CERTAIN: [(&str, &str); 122] = [
    ("1password-secret-key", PREFIX_PARTS),
    ("1password-service-account-token", PREFIX),
    ("adobe-client-secret", PREFIX),
    ("age-secret-key", PREFIX),
    ("airtable-personnal-access-token", PREFIX_PARTS),
    ("alibaba-access-key-id", PREFIX),
    ("anthropic-admin-api-key", PREFIX_PARTS),
    ("anthropic-api-key", PREFIX_PARTS),
    ("artifactory-api-key", PREFIX),
    ("artifactory-reference-token", PREFIX),
    ("authress-service-client-access-key", PREFIX_PARTS),
    ("aws-access-token", PREFIX),
    ("aws-amazon-bedrock-api-key-long-lived", PREFIX),
    ("azure-ad-client-secret", MARK),
    ("beamer-api-token", PREFIX),
    ("clojars-api-token", PREFIX),
    ("cloudflare-origin-ca-key", PREFIX_PARTS),
    ("databricks-api-token", PREFIX),
    ("defined-networking-api-token", PREFIX_PARTS),
    ("digitalocean-access-token", PREFIX),
    ("digitalocean-pat", PREFIX),
    ("digitalocean-refresh-token", PREFIX),
    ("doppler-api-token", PREFIX),
    ("duffel-api-token", PREFIX),
    ("dynatrace-api-token", PREFIX_PARTS),
    ("easypost-api-token", PREFIX),
    ("easypost-test-api-token", PREFIX),
    ("facebook-page-access-token", PREFIX),
    ("flutterwave-encryption-key", PREFIX),
    ("flutterwave-secret-key", PREFIX),
    ("flyio-access-token", PREFIX),
    ("frameio-api-token", PREFIX),
    ("gcp-api-key", PREFIX),
    ("github-app-token", PREFIX),
    ("github-fine-grained-pat", PREFIX),
    ("github-oauth", PREFIX),
    ("github-pat", PREFIX),
    ("github-refresh-token", PREFIX),
    ("gitlab-cicd-job-token", PREFIX_PARTS),
    ("gitlab-deploy-token", PREFIX),
    ("gitlab-feature-flag-client-token", PREFIX),
    ("gitlab-feed-token", PREFIX),
    ("gitlab-incoming-mail-token", PREFIX),
    ("gitlab-kubernetes-agent-token", PREFIX),
    ("gitlab-oauth-app-secret", PREFIX),
    ("gitlab-pat", PREFIX),
    ("gitlab-pat-routable", PREFIX_PARTS),
    ("gitlab-ptt", PREFIX),
    ("gitlab-rrt", PREFIX),
    ("gitlab-runner-authentication-token", PREFIX),
    ("gitlab-runner-authentication-token-routable", PREFIX_PARTS),
    ("gitlab-scim-token", PREFIX),
    ("gocardless-api-token", PREFIX),
    ("grafana-api-key", PREFIX),
    ("grafana-cloud-api-token", PREFIX),
    ("grafana-service-account-token", PREFIX_PARTS),
    ("harness-api-key", PREFIX_PARTS),
    ("hashicorp-tf-api-token", MARK),
    ("heroku-api-key-v2", PREFIX),
    ("huggingface-access-token", PREFIX),
    ("huggingface-organization-api-token", PREFIX),
    ("infracost-api-token", PREFIX),
    ("intra42-client-secret", PREFIX),
    ("linear-api-key", PREFIX),
    ("lob-api-key", PREFIX),
    ("mailchimp-api-key", MARK),
    ("mailgun-private-api-token", PREFIX),
    ("maxmind-license-key", MARK),
    ("microsoft-teams-webhook", URL),
    ("new-relic-insert-key", PREFIX),
    ("new-relic-user-api-key", PREFIX),
    ("notion-api-token", PREFIX),
    ("npm-access-token", PREFIX),
    ("octopus-deploy-api-key", PREFIX),
    ("openai-api-key", MARK),
    ("openshift-user-token", PREFIX),
    ("perplexity-api-key", PREFIX),
    ("plaid-api-token", PREFIX_PARTS),
    ("planetscale-api-token", PREFIX),
    ("planetscale-oauth-token", PREFIX),
    ("planetscale-password", PREFIX),
    ("postman-api-token", PREFIX_PARTS),
    ("prefect-api-token", PREFIX),
    ("private-key", FRAME),
    ("pulumi-api-token", PREFIX),
    ("pypi-upload-token", PREFIX),
    ("readme-api-token", PREFIX),
    ("rubygems-api-token", PREFIX),
    ("scalingo-api-token", PREFIX),
    ("sendgrid-api-token", PREFIX),
    ("sendinblue-api-token", PREFIX_PARTS),
    ("sentry-org-token", PREFIX_PARTS),
    ("sentry-user-token", PREFIX),
    ("settlemint-application-access-token", PREFIX),
    ("settlemint-personal-access-token", PREFIX),
    ("settlemint-service-access-token", PREFIX),
    ("shippo-api-token", PREFIX),
    ("shopify-access-token", PREFIX),
    ("shopify-custom-access-token", PREFIX),
    ("shopify-private-app-access-token", PREFIX),
    ("shopify-shared-secret", PREFIX),
    ("sidekiq-sensitive-url", URL),
    ("slack-app-token", PREFIX_PARTS),
    ("slack-bot-token", PREFIX_PARTS),
    ("slack-config-access-token", PREFIX),
    ("slack-config-refresh-token", PREFIX),
    ("slack-legacy-bot-token", PREFIX_PARTS),
    ("slack-legacy-token", PREFIX_PARTS),
    ("slack-legacy-workspace-token", PREFIX),
    ("slack-user-token", PREFIX_PARTS),
    ("slack-webhook-url", URL),
    ("square-access-token", PREFIX),
    ("stripe-access-token", PREFIX),
    ("telegram-bot-api-token", PREFIX_PARTS),
    ("twilio-api-key", PREFIX),
    ("typeform-api-token", PREFIX),
    ("vault-batch-token", PREFIX),
    ("yandex-access-token", PREFIX_PARTS),
    ("yandex-api-key", PREFIX),
    ("yandex-aws-access-token", PREFIX),
    ("dropbox-short-lived-api-token", PREFIX),
    ("new-relic-browser-api-token", PREFIX),
];

/// Why a rule of gitleaks is certain.
pub(crate) fn certain(id: &str) -> Option<&'static str> {
    CERTAIN.iter().find(|(certain, _)| *certain == id).map(|(_, reason)| *reason)
}

/// The ids of that table.
pub(crate) fn certain_ids() -> impl Iterator<Item = &'static str> {
    CERTAIN.iter().map(|(id, _)| *id)
}
