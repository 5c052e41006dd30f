//! The service over real sockets: who gets which answer, what is refused and how, and how it ends.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

#[path = "http/client.rs"]
mod client;
#[path = "http/fake.rs"]
mod fake;
#[path = "http/service.rs"]
mod service;
#[path = "http/hostile.rs"]
mod hostile;
#[path = "http/matrix.rs"]
mod matrix;
#[path = "http/real.rs"]
mod real;
#[path = "http/tenants.rs"]
mod tenants;
#[path = "http/v1.rs"]
mod v1;
#[path = "http/v2.rs"]
mod v2;
#[path = "http/bounds.rs"]
mod bounds;
#[path = "http/openapi.rs"]
mod openapi;
#[path = "http/admin.rs"]
mod admin;
