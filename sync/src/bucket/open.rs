//! The library's client of a bucket, made from what a user says; the only place that reads credentials.

use std::sync::Arc;

use agent_trace_store::{Error, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::line::Line;
use super::url::{BucketUrl, Cloud, Credential};

/// What a bucket can do by way of the library.
pub(super) trait Keeper: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Keeper for T {}

/// Makes a client; nothing is sent yet.
pub(super) fn open(url: &BucketUrl, line: &Line) -> Result<Arc<dyn Keeper>> {
    match url.cloud {
        Cloud::S3 => s3(url, line),
        Cloud::Google => google(url, line),
        Cloud::Azure => azure(url, line),
    }
    .map_err(|error| {
        // The library's messages name what is missing, and repeat values of some.
        let what = match &error {
            object_store::Error::Generic { source, .. } if url.credentials.is_empty() => source.to_string(),
            _ => "something that it needs is missing or cannot be read".to_owned(),
        };
        Error::invalid(format!("cannot prepare requests to `{url}`: {what}"))
    })
}

/// What is tried again is decided elsewhere.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn options() -> ClientOptions {
    // Whether it may be `http` was asked when the endpoint was given.
    ClientOptions::new().with_allow_http(true)
}

fn s3(url: &BucketUrl, line: &Line) -> object_store::Result<Arc<dyn Keeper>> {
    let said = url.options();
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(url.bucket())
        .with_http_connector(line.clone())
        .with_client_options(options())
        .with_retry(no_retries())
        .with_skip_signature(said.anonymous)
        .with_disable_tagging(true)
        .with_disable_bulk_delete(true)
        .with_virtual_hosted_style_request(said.virtual_host);
    if let Some(region) = &said.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &said.endpoint {
        builder = builder.with_endpoint(match endpoint.split_once("://") {
            Some((scheme, host)) if said.virtual_host => format!("{scheme}://{}.{host}", url.bucket()),
            _ => endpoint.clone(),
        });
    }
    for (part, key) in [
        (Credential::AccessKey, AmazonS3ConfigKey::AccessKeyId),
        (Credential::SecretKey, AmazonS3ConfigKey::SecretAccessKey),
        (Credential::SessionToken, AmazonS3ConfigKey::Token),
        (Credential::IdentityFile, AmazonS3ConfigKey::WebIdentityTokenFile),
        (Credential::Role, AmazonS3ConfigKey::RoleArn),
        (Credential::ContainerPath, AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
        (Credential::ContainerUrl, AmazonS3ConfigKey::ContainerCredentialsFullUri),
        (Credential::ContainerTokenFile, AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
    ] {
        if let Some(text) = url.credentials.get(part) {
            builder = builder.with_config(key, text);
        }
    }
    Ok(Arc::new(builder.build()?))
}

fn google(url: &BucketUrl, line: &Line) -> object_store::Result<Arc<dyn Keeper>> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(url.bucket())
        .with_http_connector(line.clone())
        .with_client_options(options())
        .with_retry(no_retries())
        .with_skip_signature(url.options().anonymous);
    if let Some(endpoint) = &url.options().endpoint {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
    }
    for (part, key) in [
        (Credential::SecretKey, GoogleConfigKey::ServiceAccountKey),
        (Credential::ServiceAccountFile, GoogleConfigKey::ApplicationCredentials),
    ] {
        if let Some(text) = url.credentials.get(part) {
            builder = builder.with_config(key, text);
        }
    }
    Ok(Arc::new(builder.build()?))
}

fn azure(url: &BucketUrl, line: &Line) -> object_store::Result<Arc<dyn Keeper>> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(url.bucket())
        .with_http_connector(line.clone())
        .with_client_options(options())
        .with_retry(no_retries())
        .with_skip_signature(url.options().anonymous);
    if let Some(endpoint) = &url.options().endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    for (part, key) in [
        (Credential::AccessKey, AzureConfigKey::AccountName),
        (Credential::SecretKey, AzureConfigKey::AccessKey),
        (Credential::SessionToken, AzureConfigKey::SasKey),
    ] {
        if let Some(text) = url.credentials.get(part) {
            builder = builder.with_config(key, text);
        }
    }
    Ok(Arc::new(builder.build()?))
}
